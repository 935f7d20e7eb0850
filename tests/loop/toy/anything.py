"""A toy environment in which every answer is right, so that a random model's run has counts that can be foretold."""

from agentloop import Environment, StepResult, Task


class Anything(Environment):
    """Say anything."""

    def tasks(self, split):
        return [Task(f"{split}-{number}", {}) for number in range(20)]

    def reset(self, task):
        self.turns = 0
        return "hello"

    def step(self, action):
        self.turns += 1
        return StepResult("go on", 1.0 if self.turns == 2 else 0.0, done=self.turns == 2)
