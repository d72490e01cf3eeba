"""What is due between two steps: validations and checkpoints."""

from __future__ import annotations

from functools import partial

from pipeline.files import writing_to
from pipeline.versions import software
from training.checkpoint import BEST, RESUME, Checkpoint, RunMeta, save_checkpoint, save_last
from training.distributed import gathered
from training.predict import Segmenter, predict_samples
from training.state import RunState, Setting
from training.validation import sample_scores, scores_line, validation_scores
from training.weights import Weights


class BetweenSteps:
    """Validates and saves a training."""

    def __init__(self, setting: Setting, weights: Weights, state: RunState) -> None:
        self.setting, self.weights, self.state = setting, weights, state

    def do_what_is_due(self) -> None:
        """Validate and save, where it is time to."""
        step, config = self.state.step, self.setting.config
        ends = step == config.steps
        validated = not self.setting.data.validation or self.state.validated_step == step
        if not validated and (ends or step % config.validate_every == 0):
            self._validate()
        if step > 0 and (ends or step % config.checkpoint_every == 0):
            self.save_last()

    def _validate(self) -> None:
        setting, state, classes = self.setting, self.state, self.setting.data.classes
        mine = setting.data.validation[setting.ranks.rank :: setting.ranks.world_size]
        segmenter = self._segmenter()
        scored = []
        for dataset in setting.data.datasets:
            indices = [index for of, index in mine if of is dataset]
            predictions = predict_samples(segmenter, dataset, indices, setting.config.batch_size)
            scored += sample_scores(predictions, classes, partial(setting.data.annotated, dataset))
        scores = validation_scores(gathered(setting.ranks, scored), classes)
        with setting.interrupts.held():
            setting.journal.add({"step": state.step, "val": scores})
            state.validated_step, state.last_scores = state.step, scores
            if state.best_score is None or scores["score"] >= state.best_score:
                state.best_score = scores["score"]
                self._save_best()
        setting.journal.say(f"step {state.step}: validation {scores_line(scores)}")

    def _segmenter(self) -> Segmenter:
        setting, config = self.setting, self.setting.config
        return Segmenter(
            self.weights.used.eval(),
            setting.data.classes,
            config.window,
            setting.shape,
            setting.data.spacing_mm,
            setting.device,
            heads=config.network.heads,
        )

    def save_last(self) -> None:
        """Write the training as it stands; without validation it is the best one as well."""
        setting, state = self.setting, self.state
        if setting.ranks.first:
            with writing_to(setting.out, RESUME):
                save_last(setting.out, self._checkpoint(), setting.config.keep, state.saved_step)
        state.saved_step = state.step
        if not setting.data.validation:
            self._save_best()

    def _save_best(self) -> None:
        if self.setting.ranks.first:
            with writing_to(self.setting.out, RESUME):
                save_checkpoint(self.setting.out / BEST, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        setting, state, weights = self.setting, self.state, self.weights
        meta = RunMeta(
            step=state.step,
            config=setting.config,
            classes=dict(setting.data.classes.classes),
            spacing_mm=setting.data.spacing_mm,
            patch_shape=setting.shape,
            dataset=setting.data.paths,
            dataset_digest=setting.data.digest,
            processes=setting.ranks.world_size,
            software=software(),
        )
        return Checkpoint(
            meta,
            weights.network.state_dict(),
            None if weights.averaged is None else weights.averaged.module.state_dict(),
            weights.optimizer.state_dict(),
            weights.scaler.state_dict() or None,
            state.stream,
            state.best_score,
            state.validated_step,
        )
