"""The engine of a flow: as the local one, and of published weights that are not here it says how to get them."""

from ..engine.local import LocalEngine
from ..errors import WeightsError
from ..weights.index import name_at
from .plan import Plan


class FlowEngine(LocalEngine):
    """Runs the executors of a plan in this process."""

    def __init__(self, plan: Plan):
        super().__init__(plan.executors)
        self._plan = plan

    def check(self, name: str) -> None:
        """As the local engine's; a WeightsError for weights that were not fetched names the command that fetches."""
        absent = [path for path in self.plan(name).weights.values() if name_at(path) and not path.exists()]
        if absent:
            weights = str(name_at(absent[0]))
            cure = f"'dalle-flow weights fetch {weights}' gets them"
            if weights in self._plan.published:
                cure = f"'dalle-flow weights fetch --flow {self._plan.flow}' gets all that this flow needs"
            raise WeightsError(f"{name}: the weights {weights} are not on this machine ({absent[0]}); {cure}.")
        super().check(name)
