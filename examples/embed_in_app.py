"""A program with its own main loop, simulator and HTTP server, in which collecting is one job.

    python examples/embed_in_app.py --port 8000 --output datasets/own
    curl -X POST localhost:8000/collect    # or /step, /idle, /quit
    curl localhost:8000

The simulator belongs to the main thread. The server's thread only puts names into a queue.
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


class Program:
    """The main loop: one frame of collecting, one step of its own, or a short sleep per turn.

    Args:
        env: The environment, made by this thread.
        args: The command line.
    """

    def __init__(self, env: gym.Env, args: argparse.Namespace) -> None:
        self.wishes: queue.Queue[str] = queue.Queue()
        self.job = "idle"
        self.progress = CollectionProgress(0, 0, 0, 0)
        self._env, self._args = env, args
        self._session: CollectionSession | None = None

    def run(self) -> None:
        """Turns until it is told to quit."""
        while self.job != "quit":
            if not self.wishes.empty():
                self._switch(self.wishes.get())
            if self._session is not None:
                self._collect(self._session)
            elif self.job == "step":
                self._env.step(self._env.action_space.sample())
            else:
                time.sleep(0.02)  # here an Isaac Sim program calls app.update()

    def _collect(self, session: CollectionSession) -> None:
        going = session.step()
        self.progress = CollectionProgress.of(session)
        if not going:
            self._switch("idle")

    def _switch(self, job: str) -> None:
        if self._session is not None:
            self._session.close()  # drops the episode in hand
            self._session = None
        self.job = job
        if job == "collect":
            output, wanted = self._args.output, self._args.num_episodes
            self._session = make_collection(self._env, wanted, output, resume=True)
        elif job == "step":
            self._env.reset(seed=0)


def serve(program: Program, port: int) -> ThreadingHTTPServer:
    """The program's own HTTP server, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            self._answer(200)

        def do_POST(self) -> None:  # noqa: N802
            job = self.path.strip("/")
            if job in JOBS:
                program.wishes.put(job)
            self._answer(202 if job in JOBS else 404)

        def _answer(self, status: int) -> None:
            body = json.dumps({"job": program.job, **program.progress._asdict()}).encode()
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
    """Runs the program; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--output", type=Path, default=Path("datasets/own"))
    parser.add_argument("--num-episodes", type=int, default=10)
    parser.add_argument("--resolution", type=int, default=512)
    args = parser.parse_args()
    env = gym.make(
        pp_env.ENV_ID,
        max_episode_steps=sys.maxsize,
        obs_type="pixels_agent_pos",
        terminate_on_success=False,
        config=PickPlaceConfig(render=RenderConfig(resolution=args.resolution, preset="fast")),
    )
    program = Program(env, args)
    with serve(program, args.port) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        program.run()
        server.shutdown()
    env.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
