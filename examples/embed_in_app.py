"""Embed collecting in an application with its own main loop, simulator and HTTP server.

    python examples/embed_in_app.py --port 8000 --output datasets/own
    curl -X POST localhost:8000/collect    # or /step, /idle, /quit
    curl localhost:8000

Only the main thread uses the simulator. The server's thread puts the names of jobs into a queue.
"""

import argparse
import json
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gymnasium as gym

import pp_env
from pp_bridge import CollectionProgress, make_collection
from pp_collect.session import CollectionSession
from pp_env.config import PickPlaceConfig, RenderConfig

JOBS = ("collect", "step", "idle", "quit")


class Application:
    """The main loop: each iteration collects a frame, takes a step of its own, or sleeps.

    Args:
        env: The environment, made by this thread.
        args: The command line.

    Attributes:
        requests: Names of jobs to switch to.
        job: The current one of `JOBS`.
        progress: Progress of the collection.
    """

    def __init__(self, env: gym.Env, args: argparse.Namespace) -> None:
        self.requests: queue.Queue[str] = queue.Queue()
        self.job = "idle"
        self.progress = CollectionProgress(0, 0, 0, 0)
        self._env, self._args = env, args
        self._session: CollectionSession | None = None

    def run(self) -> None:
        """Run until the job is "quit"."""
        while self.job != "quit":
            if not self.requests.empty():
                self._switch(self.requests.get())
            if self._session is not None:
                self._collect(self._session)
            elif self.job == "step":
                self._env.step(self._env.action_space.sample())
            else:
                time.sleep(0.02)  # here an Isaac Sim application calls app.update()

    def _collect(self, session: CollectionSession) -> None:
        is_incomplete = session.step()
        self.progress = CollectionProgress.of(session)
        if not is_incomplete:
            self._switch("idle")

    def _switch(self, job: str) -> None:
        if self._session is not None:
            self._session.close()  # drops the current episode
            self._session = None
        self.job = job
        if job == "collect":
            output, wanted = self._args.output, self._args.num_episodes
            self._session = make_collection(self._env, wanted, output, resume=True)
        elif job == "step":
            self._env.reset(seed=0)


def serve(app: Application, port: int) -> ThreadingHTTPServer:
    """Start the application's own HTTP server in a thread, and return it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self._answer(200)

        def do_POST(self) -> None:  # noqa: N802
            job = self.path.strip("/")
            if job in JOBS:
                app.requests.put(job)
            self._answer(202 if job in JOBS else 404)

        def _answer(self, status: int) -> None:
            body = json.dumps({"job": app.job, **app.progress._asdict()}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main() -> int:
    """Run the application; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="of the HTTP server; 0: any")
    parser.add_argument("--output", type=Path, default=Path("datasets/own"), help="dataset")
    parser.add_argument("--num-episodes", type=int, default=10, help="in the dataset")
    parser.add_argument("--resolution", type=int, default=512, help="of images, pixels")
    args = parser.parse_args()
    env = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        obs_type="pixels_agent_pos",
        terminate_on_success=False,
        config=PickPlaceConfig(render=RenderConfig(resolution=args.resolution, preset="fast")),
    )
    app = Application(env, args)
    with serve(app, args.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        app.run()
        server.shutdown()
    env.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
