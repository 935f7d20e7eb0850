"""Two OpenEnv environments as a server, for `test_openenv.py`; it runs in a virtual environment that has openenv-core.

python openenv_server.py PORT text|fields SESSIONS
"""

import random
import sys
import time

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Guess(Action):
    """Guess the word."""

    word: str


class Move(Action):
    """Move by a number of steps."""

    steps: int
    direction: str = "up"


class Seen(Observation):
    text: str
    tries: int = 0


class Words(Environment):
    """Guess the hidden word; it is apple or pear."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **options):
        self.word = random.Random(seed).choice(["apple", "pear"])
        self.tries = 0
        return Seen(text=options.get("greeting", "Which word?"), tries=0)

    def step(self, action, timeout_s=None, **options):
        self.tries += 1
        if action.word == "sleep":
            time.sleep(60)
        if action.word == "crash":
            raise RuntimeError("the dictionary is lost")
        right = action.word == self.word
        return Seen(text="Right." if right else "Wrong.", tries=self.tries, reward=float(right), done=right)

    @property
    def state(self):
        return State(step_count=self.tries)


class Steps(Words):
    """Reach 10."""

    def step(self, action, timeout_s=None, **options):
        self.tries += action.steps if action.direction == "up" else -action.steps
        return Seen(text=f"At {self.tries}", tries=self.tries, reward=float(self.tries == 10), done=self.tries == 10)


if __name__ == "__main__":
    port, kind, sessions = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    environment, action = (Words, Guess) if kind == "text" else (Steps, Move)
    uvicorn.run(create_fastapi_app(environment, action, Seen, max_concurrent_envs=sessions), port=port, log_level="warning")
