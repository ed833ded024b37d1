"""A dispatcher as one writes it with Celery: one task that posts its argument, on a worker whose pool is made of
greenlets, as Celery's documentation advises for tasks that wait for a network. It acknowledges after the task has
returned, and gives the task back when the answer is none of 2xx."""

from gevent import monkey

monkey.patch_all()

import argparse
import base64

import requests
from celery import Celery
from celery.exceptions import Reject
from kombu import Queue
from requests.adapters import HTTPAdapter

parser = argparse.ArgumentParser()
for name in ("--broker", "--queue", "--sink"):
    parser.add_argument(name, required=True)
for name in ("--prefetch", "--in-flight"):
    parser.add_argument(name, type=int, required=True)
options = parser.parse_args()

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=options.in_flight))

app = Celery("bench", broker=options.broker)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    # The queue is there, with arguments of its own.
    task_queues=[Queue(options.queue, no_declare=True)],
    task_default_queue=options.queue,
    # A multiple of the concurrency is all that there is: the next that is not less than what the others have.
    worker_prefetch_multiplier=-(-options.prefetch // options.in_flight),
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.post")
def post(body: str) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    try:
        response = session.post(options.sink, data=base64.b64decode(body), headers=headers)
        accepted = 200 <= response.status_code < 300
    except requests.RequestException:
        accepted = False
    if not accepted:
        raise Reject("the worker did not accept it", requeue=True)


app.worker_main(
    [
        "worker",
        "--pool=gevent",
        f"--concurrency={options.in_flight}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--loglevel=WARNING",
    ]
)
