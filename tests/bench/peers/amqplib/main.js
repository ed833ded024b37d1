// A dispatcher as one writes it with amqplib and undici: each delivery is posted at once through a pool that has a
// connection for each post in flight, and acknowledged by hand after a 2xx. With --multiple it acknowledges settled
// prefixes together, by the option `allUpTo` of amqplib's `ack`.
import { parseArgs } from "node:util";
import amqp from "amqplib";
import { Pool } from "undici";

const text = { type: "string" };
const { values: options } = parseArgs({
  options: {
    broker: text,
    queue: text,
    sink: text,
    prefetch: text,
    "in-flight": text,
    multiple: { type: "boolean", default: false },
  },
});

const http = new Pool(options.sink, { connections: Number(options["in-flight"]) });
const connection = await amqp.connect(options.broker);
const channel = await connection.createChannel();
await channel.prefetch(Number(options.prefetch));

async function post(body) {
  const response = await http.request({
    path: "/",
    method: "POST",
    headers: { "content-type": "application/octet-stream" },
    body,
  });
  // Undici keeps a connection only for those who read the answer to its end.
  await response.body.dump();
  return response.statusCode >= 200 && response.statusCode < 300;
}

// Acknowledges the longest settled prefix of delivery tags, a millisecond after the first or every 32 messages.
class Window {
  settled = new Map();
  // `next` is the lowest tag that is not settled, `last` the message before it that the broker was not told of.
  next = 1;
  last = null;
  waiting = 0;
  timer = null;

  settle(message) {
    this.settled.set(message.fields.deliveryTag, message);
    while (this.settled.has(this.next)) {
      this.last = this.settled.get(this.next);
      this.settled.delete(this.next);
      this.next += 1;
      this.waiting += 1;
    }
    if (this.waiting >= 32) {
      this.flush();
    } else if (this.waiting > 0) {
      this.timer ??= setTimeout(() => this.flush(), 1);
    }
  }

  flush() {
    clearTimeout(this.timer);
    this.timer = null;
    if (this.waiting > 0) {
      channel.ack(this.last, true);
      this.waiting = 0;
    }
  }
}

const window = new Window();
const settle = options.multiple ? (message) => window.settle(message) : (message) => channel.ack(message);
const underWay = new Set();

async function handle(message) {
  const accepted = await post(message.content).catch(() => false);
  if (accepted) {
    settle(message);
  } else {
    channel.nack(message);
  }
}

const { consumerTag } = await channel.consume(options.queue, (message) => {
  if (message === null) {
    throw new Error("the broker has ended the subscription");
  }
  const handling = handle(message).finally(() => underWay.delete(handling));
  underWay.add(handling);
});

process.once("SIGTERM", async () => {
  await channel.cancel(consumerTag);
  await Promise.all(underWay);
  window.flush();
  await channel.close();
  await connection.close();
  await http.close();
});
