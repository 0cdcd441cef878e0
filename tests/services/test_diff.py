"""What is shown before it is done is what is done: for random stacks, in random states."""

from collections import defaultdict
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.services.case import KeeperCase
from txcontain.services.document import COMPLETED, HEALTHY, STARTED

NAMES = "abcd"
LONG = 400.0  # seconds, in which any of these stacks is as wished
UPDATES = st.fixed_dictionaries(
    {},
    optional={
        "order": st.sampled_from(["stop-first", "start-first"]),
        "parallelism": st.integers(0, 3),
        "delay": st.sampled_from([0, 2]),
        "monitor": st.sampled_from([0, 1, 5]),
    },
)


@st.composite
def stacks(draw: Any) -> dict[str, Any]:
    """The services of a stack."""
    services: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1).map(sorted)):
        minor = draw(st.sampled_from(["01", "02", "03"]))
        kind = draw(st.sampled_from(["replicas", "replicas", "once"]))
        service: dict[str, Any] = {"config": f"web-1-{minor}"}
        if kind == "once":
            service["run"] = "once"
        else:
            service |= {"replicas": draw(st.integers(0, 4)), "update": draw(UPDATES)}
        after = {}
        for other in services:
            if draw(st.booleans()):
                once = "run" in services[other]
                after[other] = draw(st.sampled_from([STARTED, COMPLETED if once else HEALTHY]))
        services[name] = {**service, "after": after}
    return services


def by_service(steps: list[str]) -> dict[str, list[str]]:
    """The steps of each service, in their order."""
    found = defaultdict(list)
    for step in steps:
        found[step.split("-")[1]].append(step)
    return dict(found)


class DiffTests(KeeperCase):
    """What diff shows."""

    def check(self, services: dict[str, Any]) -> None:
        """Fail unless what was foreseen is done, in each service's order, and no more is left."""
        self.take_steps()
        foreseen = self.up(**services)
        self.advance(LONG)
        self.assertEqual(by_service(self.take_steps()), by_service(foreseen))
        self.assertEqual(set(self.services().values()), {"done"})
        self.assertEqual(self.up(**services), [])

    @settings(max_examples=15, phases=[Phase.generate])
    @given(
        st.lists(st.tuples(stacks(), st.sampled_from([0.0, 0.5, 3.0, LONG])), max_size=2), stacks()
    )
    def test_random(self, before: list[tuple[dict[str, Any], float]], last: dict[str, Any]) -> None:
        """After whatever stacks, as they stand some seconds later, the steps are those shown."""
        self.setUp()
        for services, seconds in before:
            self.up(**services)
            self.advance(seconds)
        self.check(last)
