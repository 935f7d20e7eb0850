"""A toy environment: say the number after the one that is shown, `steps` times."""

from agentloop import Environment, StepResult, Task

SPLITS = {"train": range(40), "dev": range(40, 60), "test": range(60, 80)}


class Count(Environment):
    """Answer with the number after the one you are shown."""

    def __init__(self, steps: int = 2) -> None:
        self.steps = steps

    def tasks(self, split):
        return [Task(f"from-{start}", {"start": start}) for start in SPLITS[split]]

    def reset(self, task):
        self.number = task.data["start"]
        self.left = self.steps
        return str(self.number)

    def step(self, action):
        if action.strip() != str(self.number + 1):
            return StepResult("wrong", 0.0, done=True)
        self.number += 1
        self.left -= 1
        return StepResult(str(self.number), 1.0 if self.left == 0 else 0.0, done=self.left == 0)
