"""A training that is asked to end ends at once, in all its processes."""

from __future__ import annotations

import signal

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import Callback

from tumorseg_runtime.core.stop import Stopped


class StopAtOnce(Callback):
    """Lets the command line's handler of SIGTERM alone decide, and tells the other processes.

    Lightning's own handler ends with exit status 0 after the batch, and before that broadcasts, which waits
    for ever where another process is in the middle of a step.
    """

    def __init__(self) -> None:
        self._before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Put back the handler that was there before Lightning's."""
        if callable(self._before):
            signal.signal(signal.SIGTERM, self._before)

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """The processes that this one has started stop, too."""
        launcher = trainer.strategy.launcher
        if isinstance(exception, Stopped) and launcher is not None:
            launcher.kill(exception.number)
