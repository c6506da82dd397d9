"""A run to look at: a live table in a terminal, lines elsewhere, TensorBoard if asked for."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from implicit_prime.errors import MissingExtraError

if TYPE_CHECKING:
    from implicit_prime.config import PrimeConfig

_BARS = "▁▂▃▄▅▆▇█"
_HEADLINES = ("reward/mean", "prm/accuracy", "policy/loss", "rollout/pass_rate")
_WIDTH = 40


class Dashboard:
    """Shows the metrics of steps; a context manager. `active` False: nothing at all, for other processes.

    total  steps of the whole run, None where the data decides

    Raises `PrimeError` for report_to="tensorboard" where that is not installed.
    """

    def __init__(
        self, args: PrimeConfig, total: int | None, active: bool = True, console: Console | None = None
    ) -> None:
        self.args = args
        self.total = total
        self.active = active
        self.console = console or Console(stderr=True)
        self._history: dict[str, deque[float]] = {name: deque(maxlen=_WIDTH) for name in _HEADLINES}
        self._live: Live | None = None
        self._writer: Any = _tensorboard(args) if active and args.report_to == "tensorboard" else None

    def __enter__(self) -> Dashboard:
        if self.active and self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._writer is not None:
            self._writer.close()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Show a step."""
        if not self.active:
            return
        for name, values in self._history.items():
            if name in metrics and metrics[name] == metrics[name]:
                values.append(metrics[name])
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
        if self._live is not None:
            self._live.update(self._picture(step, metrics), refresh=True)
        elif step % self.args.logging_steps == 0:
            told = ", ".join(f"{name} {metrics[name]:.3g}" for name in _HEADLINES if name in metrics)
            evaluated = [f"{name} {value:.3g}" for name, value in metrics.items() if name.startswith("eval/")]
            self.console.print(f"step {self._place(step)}: {', '.join([told, *evaluated])}", highlight=False)

    def _place(self, step: int) -> str:
        return str(step) if self.total is None else f"{step}/{self.total}"

    def _picture(self, step: int, metrics: dict[str, float]) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("metric", "now", "so far"):
            table.add_column(name, justify="right" if name == "now" else "left")
        for name, values in self._history.items():
            if values:
                table.add_row(name, f"{values[-1]:.3g}", sparkline(list(values)))
        rest = {name: value for name, value in metrics.items() if name not in self._history}
        for name in sorted(rest):
            table.add_row(name, f"{rest[name]:.3g}", "")
        return Group(Text(f"step {self._place(step)}", style="bold"), table)


def sparkline(values: list[float]) -> str:
    """The values as bars of eight heights, from the least to the greatest of them."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[min(int((value - low) / span * len(_BARS)), len(_BARS) - 1)] for value in values)


def _tensorboard(args: PrimeConfig) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(
            "report_to is 'tensorboard', which is not installed: pip install 'implicit-prime[tensorboard]'"
        ) from error
    return SummaryWriter(str(Path(args.output_dir) / "tensorboard"))
