"""A keeper on a fake machine."""

import json
from typing import Any

from tests.engine.test_recovery import RestoreTestCase
from txcontain.services import asking
from txcontain.services.keeper import Keeper, keeper_of
from txcontain.services.steps import OfInstance

WEB = {"config": "web-1-01"}
BEGIN = Keeper._begin


class KeeperCase(RestoreTestCase):
    """A test of stacks on a fake machine, on which programs run until the test ends them."""

    network: str | None = "host"  # of the configs

    def setUp(self) -> None:
        super().setUp()
        self.began: list[OfInstance] = []  # steps
        self.patch(Keeper, "_begin", self.begin_and_remember(BEGIN))
        self.keeper.start()
        for name in ("web", "db", "job"):
            for minor in ("01", "02", "03"):
                self.add(name=name, minor=minor, network=self.network)

    def begin_and_remember(self, begin: Any) -> Any:
        """What begins a step, and has the test know of it."""

        def both(keeper: Keeper, wished: Any, step: OfInstance) -> None:
            self.began.append(step)
            begin(keeper, wished, step)

        return both

    @property
    def keeper(self) -> Keeper:
        """The manager's."""
        return keeper_of(self.manager)

    def up(self, stack: str = "shop", /, **services: Any) -> list[str]:
        """Have a stack be as this says; returns the steps that were foreseen."""
        document = {"stack": stack, "services": services}
        planned = self.now(asking.up(self.keeper, json.loads(json.dumps(document))))
        return [str(step) for step in planned.steps]

    def advance(self, seconds: float = 0.0, jobs: str = "Done") -> None:
        """Let time pass, from one thing that is due to the next; jobs end with these words."""
        until = self.reactor.seconds() + seconds
        while True:
            self.end_jobs(jobs)
            calls: list[Any] = list(self.reactor.getDelayedCalls())
            due = [call.getTime() for call in calls]
            if not due or min(due) > until:
                break
            self.reactor.advance(max(min(due) - self.reactor.seconds(), 0))
        self.reactor.advance(until - self.reactor.seconds())

    def pump(self) -> None:
        """Do all that is due now, and what follows from that."""
        for _ in range(30):
            self.reactor.advance(0.001)

    def end_jobs(self, words: str) -> None:
        """Let the jobs that run end."""
        for instance in list(self.manager.instances.values()):
            labels = instance.labels.keys()
            if instance.running and "service" in labels and "replica" not in labels:
                self.end(instance.name, words)

    def end(self, name: str, words: str = "Done(1)") -> None:
        """An instance's program ends."""
        processes = self.manager.instances[name].processes
        assert processes is not None
        token = processes.token
        next(init for init in self.reactor.inits if init.token == token).end(words)
        self.pump()

    def take_steps(self) -> list[str]:
        """The steps that were begun since this was called last."""
        began, self.began = [str(step) for step in self.began], []
        return began

    def services(self) -> dict[str, str]:
        """The state of each service, with why."""
        told = [
            one
            for wished in self.keeper.wished.values()
            for one in asking.told(self.keeper, wished)
        ]
        return {one["service"]: f"{one['state']}: {one['why']}".rstrip(": ") for one in told}

    def restart(self) -> None:
        """Kill the manager, and start another."""
        self.keeper.stop()
        self.next_manager()
        self.keeper.start()
        self.pump()
