import java.net.URI;
import java.util.List;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.springframework.amqp.core.MessageListener;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;
import org.springframework.amqp.rabbit.listener.SimpleMessageListenerContainer;
import org.springframework.http.MediaType;
import org.springframework.http.client.HttpComponentsClientHttpRequestFactory;
import org.springframework.web.client.RestClient;

/**
 * A dispatcher as one writes it with Spring AMQP: a listener container with a consumer for each post in flight, which
 * posts by RestClient on a pool of as many connections. The container acknowledges when the listener returns, and gives
 * the message back when it throws, as it does for every answer of 4xx and 5xx. With --multiple it does so for batchSize
 * messages together.
 *
 * <p>A channel of the container belongs to one consumer, and so does its prefetch: each gets its share, rounded up.
 */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        var options = List.of(arguments);
        int inFlight = Integer.parseInt(value(options, "--in-flight"));
        int share = (Integer.parseInt(value(options, "--prefetch")) + inFlight - 1) / inFlight;

        var pool = PoolingHttpClientConnectionManagerBuilder.create()
                .setMaxConnTotal(inFlight)
                .setMaxConnPerRoute(inFlight)
                .build();
        var client = HttpClients.custom().setConnectionManager(pool).build();
        var http = RestClient.builder()
                .requestFactory(new HttpComponentsClientHttpRequestFactory(client))
                .baseUrl(value(options, "--sink"))
                .build();
        MessageListener post = message -> http.post()
                .contentType(MediaType.APPLICATION_OCTET_STREAM)
                .body(message.getBody())
                .retrieve()
                .toBodilessEntity();

        var broker = new CachingConnectionFactory(URI.create(value(options, "--broker")));
        var container = new SimpleMessageListenerContainer(broker);
        container.setQueueNames(value(options, "--queue"));
        container.setConcurrentConsumers(inFlight);
        container.setPrefetchCount(share);
        if (options.contains("--multiple")) {
            container.setBatchSize(share);
        }
        container.setMessageListener(post);
        container.afterPropertiesSet();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            container.shutdown();
            broker.destroy();
        }));
        container.start();
    }

    private static String value(List<String> options, String name) {
        int at = options.indexOf(name);
        if (at < 0 || at + 1 == options.size()) {
            throw new IllegalArgumentException(name + " is missing");
        }
        return options.get(at + 1);
    }
}
