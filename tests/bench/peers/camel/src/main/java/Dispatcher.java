import java.net.URI;
import java.util.List;
import org.apache.camel.builder.RouteBuilder;
import org.apache.camel.main.Main;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;

/**
 * A dispatcher as one writes it with Apache Camel: a route from its component spring-rabbitmq to its component http.
 * There is a consumer for each post in flight and a connection for each. An exchange that ends well is acknowledged by
 * the container; one that does not, as with every answer other than 2xx, is given back.
 *
 * <p>A channel of the container belongs to one consumer, and so does its prefetch: each gets its share, rounded up.
 */
public final class Dispatcher extends RouteBuilder {
    private final List<String> options;

    private Dispatcher(List<String> options) {
        this.options = options;
    }

    public static void main(String[] arguments) throws Exception {
        var options = List.of(arguments);
        var main = new Main();
        main.bind("broker", new CachingConnectionFactory(URI.create(value(options, "--broker"))));
        main.configure().addRoutesBuilder(new Dispatcher(options));
        main.run();
    }

    @Override
    public void configure() {
        int inFlight = Integer.parseInt(value(options, "--in-flight"));
        int share = (Integer.parseInt(value(options, "--prefetch")) + inFlight - 1) / inFlight;
        // The direct container, which is Camel's default, calls routes on the few threads of the client: posts would
        // not be in flight in that number.
        fromF(
                        "spring-rabbitmq:default?connectionFactory=#broker&queues=%s&messageListenerContainerType=SMLC"
                                + "&concurrentConsumers=%d&prefetchCount=%d&rejectAndDontRequeue=false"
                                + "&autoDeclare=false",
                        value(options, "--queue"), inFlight, share)
                .toF("%s?maxTotalConnections=%d&connectionsPerRoute=%d", value(options, "--sink"), inFlight, inFlight);
    }

    private static String value(List<String> options, String name) {
        int at = options.indexOf(name);
        if (at < 0 || at + 1 == options.size()) {
            throw new IllegalArgumentException(name + " is missing");
        }
        return options.get(at + 1);
    }
}
