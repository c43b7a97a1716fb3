"""Progress of a run whose last batch overshoots ``total_timesteps``."""

from stable_baselines3.common.callbacks import ProgressBarCallback


class BoundedProgressBarCallback(ProgressBarCallback):
    """SB3's progress bar, which stays at its end while the last batch overshoots ``total_timesteps``."""

    def _on_step(self) -> bool:
        self.pbar.update(min(self.training_env.num_envs, self.pbar.total - self.pbar.n))
        return True
