"""Progress of a run whose last batch overshoots ``total_timesteps``."""

from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.type_aliases import MaybeCallback


class BoundedProgressBarCallback(ProgressBarCallback):
    """SB3's progress bar, which stays at its end while the last batch overshoots ``total_timesteps``."""

    def _on_step(self) -> bool:
        self.pbar.update(min(self.training_env.num_envs, self.pbar.total - self.pbar.n))
        return True


def with_bounded_progress_bar(callback: MaybeCallback) -> list[BaseCallback]:
    """The callbacks as SB3 makes them of what ``learn`` is given, and the progress bar."""
    given = callback if isinstance(callback, list) else [callback]
    callbacks = [each if isinstance(each, BaseCallback) else ConvertCallback(each) for each in given if each is not None]
    return [*callbacks, BoundedProgressBarCallback()]
