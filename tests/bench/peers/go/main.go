// A dispatcher as one writes it with the official Go client and net/http: a goroutine for each slot, manual
// acknowledgement after a 2xx. With -multiple it acknowledges settled prefixes together, as the client's
// documentation allows.
package main

import (
	"bytes"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	broker := flag.String("broker", "", "address of the broker")
	queue := flag.String("queue", "", "queue to consume")
	sink := flag.String("sink", "", "URL to post to")
	prefetch := flag.Int("prefetch", 0, "deliveries before the first acknowledgement")
	inFlight := flag.Int("in-flight", 0, "posts at the same time")
	multiple := flag.Bool("multiple", false, "acknowledge settled prefixes together")
	flag.Parse()

	connection, err := amqp.Dial(*broker)
	if err != nil {
		log.Fatal(err)
	}
	channel, err := connection.Channel()
	if err != nil {
		log.Fatal(err)
	}
	if err := channel.Qos(*prefetch, 0, false); err != nil {
		log.Fatal(err)
	}
	deliveries, err := channel.Consume(*queue, "bench-go", false, false, false, false, nil)
	if err != nil {
		log.Fatal(err)
	}

	client := &http.Client{Transport: &http.Transport{
		MaxIdleConns:        *inFlight,
		MaxIdleConnsPerHost: *inFlight,
		MaxConnsPerHost:     *inFlight,
		IdleConnTimeout:     90 * time.Second,
	}}
	settle := func(delivery amqp.Delivery) error { return delivery.Ack(false) }
	stopAcks := func() {}
	if *multiple {
		window := newWindow(channel)
		settle, stopAcks = window.settle, window.stop
	}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		// The deliveries that were prefetched still come; the channel ends after them.
		_ = channel.Cancel("bench-go", false)
	}()

	var slots sync.WaitGroup
	for range *inFlight {
		slots.Go(func() {
			for delivery := range deliveries {
				if post(client, *sink, delivery.Body) {
					if err := settle(delivery); err != nil {
						log.Print(err)
					}
				} else if err := delivery.Nack(false, true); err != nil {
					log.Print(err)
				}
			}
		})
	}
	slots.Wait()
	stopAcks()
	_ = connection.Close()
}

func post(client *http.Client, sink string, body []byte) bool {
	response, err := client.Post(sink, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode/100 == 2
}

// window acknowledges the longest settled prefix of delivery tags, every millisecond or every 32 messages.
type window struct {
	channel *amqp.Channel
	mutex   sync.Mutex
	settled map[uint64]bool
	// next is the lowest tag that is not settled, acked the highest that the broker was told.
	next, acked uint64
	ticker      *time.Ticker
	ended       chan struct{}
}

func newWindow(channel *amqp.Channel) *window {
	w := &window{channel: channel, settled: map[uint64]bool{}, next: 1,
		ticker: time.NewTicker(time.Millisecond), ended: make(chan struct{})}
	go func() {
		for {
			select {
			case <-w.ticker.C:
				w.mutex.Lock()
				_ = w.flush()
				w.mutex.Unlock()
			case <-w.ended:
				return
			}
		}
	}()
	return w
}

func (w *window) settle(delivery amqp.Delivery) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.settled[delivery.DeliveryTag] = true
	for w.settled[w.next] {
		delete(w.settled, w.next)
		w.next++
	}
	if w.next-1-w.acked >= 32 {
		return w.flush()
	}
	return nil
}

func (w *window) flush() error {
	if w.next-1 == w.acked {
		return nil
	}
	w.acked = w.next - 1
	return w.channel.Ack(w.acked, true)
}

func (w *window) stop() {
	close(w.ended)
	w.ticker.Stop()
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if err := w.flush(); err != nil {
		log.Print(err)
	}
}
