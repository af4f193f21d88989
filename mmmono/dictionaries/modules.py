"""LightningModules that train the dictionaries: what is common to them, and the SAE's and the NCL head's steps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from jaxtyping import Bool
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.metrics import ReconstructionMoments
from mmmono.dictionaries.ncl import NCLHead, at_least_float32
from mmmono.dictionaries.parallel import any_over_processes, gather_batch, place, rows_of_all_processes
from mmmono.dictionaries.pools import PairedBatch
from mmmono.dictionaries.sae import TopKSAE
from mmmono.features.retrieval import recall_at_k
from mmmono.features.store import MODALITIES, Modality

RETRIEVAL_PAIRS = 5000  # of the validation split; recall depends on how many there are to choose from


class DictionaryModule(L.LightningModule):
    """Optimizer, clipping, schedule and the book-keeping of which features fire, for any dictionary.

    With several processes everything counts and measures the pairs of all of them.

    Args:
        dictionary: what to train.
        lr: Adam's learning rate.
        warmup_steps: steps over which it rises linearly.
        decay_fraction: last share of the steps over which it falls linearly to zero.
        dead_after: pairs without firing after which a feature counts as dead.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        lr: float = 1e-3,
        warmup_steps: int = 100,
        decay_fraction: float = 0.2,
        dead_after: int = 100_000,
    ) -> None:
        super().__init__()
        self.dictionary = dictionary
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.decay_fraction = decay_fraction
        self.dead_after = dead_after
        # Pairs since each feature last fired, by modality; part of the checkpoint.
        self.register_buffer("since_fired", torch.zeros(2, dictionary.num_features, dtype=torch.int64))
        self.register_buffer("_pairs_seen", torch.zeros((), dtype=torch.int64))
        self.since_fired: Tensor
        self._pairs_seen: Tensor

    @property
    def pairs_seen(self) -> int:
        """Pairs that all processes together have trained on."""
        return int(self._pairs_seen)

    @property
    def dead(self) -> Bool[Tensor, " features"]:
        """Features that no sample of either modality has activated for `dead_after` pairs."""
        return (self.since_fired >= self.dead_after).all(0)

    def record_firing(self, fired: Bool[Tensor, "2 features"], pairs: int) -> None:
        """Note which features fired in a batch of this process's, by modality; the other processes' are added."""
        pairs *= place()[1]
        self.since_fired.add_(pairs).masked_fill_(any_over_processes(fired), 0)
        self._pairs_seen.add_(pairs)

    @property
    def is_logging_step(self) -> bool:
        """Whether this step's metrics go to the logger; on others they are not even computed."""
        return self.global_step % self.trainer.log_every_n_steps == 0

    def log_training(self, **metrics: Tensor) -> None:
        """Log what a step has measured, as the mean over all processes."""
        self.log_dict({f"train/{name}": value.detach().float() for name, value in metrics.items()}, sync_dist=True)

    def on_train_batch_start(self, batch: PairedBatch, batch_idx: int) -> None:
        """Refuse features of another width before any work."""
        if batch.image.shape[1] != self.dictionary.dim:
            raise DictionaryError(
                f"the dictionary takes embeddings of width {self.dictionary.dim}, the store has {batch.image.shape[1]}"
            )

    def configure_optimizers(self) -> Any:
        """Adam, with linear warm-up and linear decay at the end."""
        fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters())
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, eps=6.25e-10, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        decay_steps = max(1, int(self.decay_fraction * steps))

        def scale(step: int) -> float:
            return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, (steps - step) / decay_steps))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Between backward and clipping: gradients as they are, where a scaler had enlarged the loss for float16.

        Fused optimizers unscale within their step, so that Lightning leaves it to them; projecting and clipping come
        before. Gradients that are not finite are noted by the scaler, whose step then changes nothing.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, which `on_before_optimizer_step` has unscaled."""
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_validation_epoch_start(self) -> None:
        """Start counting anew."""
        self._moments = {
            modality: ReconstructionMoments(self.dictionary.dim, self.dictionary.num_features, self.device)
            for modality in MODALITIES
        }

    def log_validation(self, **metrics: float) -> None:
        """Log whole-set metrics of a validation, which are the same in all processes."""
        self.log_dict({f"val/{name}": float(value) for name, value in metrics.items()}, sync_dist=True)


class SAEModule(DictionaryModule):
    """Trains the shared TopK SAE on both modalities (Eq. 2, 3).

    One step is: backward, project out the gradient along each atom, clip, step, renormalize the atoms. Any other
    order leaves the saved atoms not quite unit or lets the optimizer's moments push along them.

    Args:
        dictionary: the SAE.
        auxk: dead latents that also learn from the residual at each step; 0 for none.
        auxk_coefficient: weight of their loss.
        **settings: see `DictionaryModule`.
    """

    dictionary: TopKSAE

    def __init__(self, dictionary: TopKSAE, auxk: int = 0, auxk_coefficient: float = 1 / 32, **settings: Any) -> None:
        super().__init__(dictionary, **settings)
        self.auxk = auxk
        self.auxk_coefficient = auxk_coefficient

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Loss of one batch of pairs."""
        output = self.dictionary(batch.image, batch.text)
        loss = output.loss
        self.record_firing(output.fired, len(batch.image))
        if self.auxk:
            auxiliary = self.dictionary.auxiliary_loss(output, self.dead, self.auxk)
            loss = loss + self.auxk_coefficient * auxiliary
        if self.is_logging_step:
            self.log_training(loss=loss, l0=output.l0, dead_fraction=self.dead.float().mean())
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Between backward and clipping: keep only what turns the atoms."""
        super().on_before_optimizer_step(optimizer)
        self.dictionary.project_decoder_gradient()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then bring the atoms back to unit length."""
        super().optimizer_step(*args, **kwargs)
        self.dictionary.normalize_decoder_()

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Add a batch of pairs to the sums over the split, in the precision of the weights."""
        with torch.autocast(self.device.type, enabled=False):
            for modality in MODALITIES:
                embeddings = getattr(batch, modality)
                codes = self.dictionary.encode(embeddings, modality)
                self._moments[modality].update(embeddings, self.dictionary.decode(codes, modality), codes)

    def on_validation_epoch_end(self) -> None:
        """Log reconstruction and sparsity of either modality over the whole split."""
        for modality, moments in self._moments.items():
            moments.merge_processes()
            for name, value in asdict(moments.quality()).items():
                self.log_validation(**{f"{modality}/{name}": value})


class NCLModule(DictionaryModule):
    """Trains the non-negative contrastive head (Eq. 4); negatives come from all processes.

    Args:
        dictionary: the head.
        input_noise: length of the Gaussian noise added to embeddings in training, relative to theirs. A few thousand
            pairs are learned by heart without it; millions need none.
        **settings: see `DictionaryModule`.
    """

    dictionary: NCLHead

    def __init__(self, dictionary: NCLHead, input_noise: float = 0.0, **settings: Any) -> None:
        super().__init__(dictionary, **settings)
        self.input_noise = input_noise

    def _inputs(self, batch: PairedBatch) -> list[Tensor]:
        """Both modalities, noisy if asked for; each batch has a seed of its own, so that a resumed run draws the same.

        The noise is drawn for the batch of all processes, of which this one takes its rows.
        """
        inputs = [getattr(batch, modality) for modality in MODALITIES]
        if not self.input_noise:
            return inputs
        rank, processes = place()
        generator = torch.Generator(self.device).manual_seed(self.trainer.fit_loop.epoch_loop.total_batch_idx)
        noisy = []
        for z in inputs:
            length = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            shape = (processes * len(z), z.shape[1])
            noise = torch.randn(shape, generator=generator, device=z.device, dtype=z.dtype).chunk(processes)[rank]
            moved = z + noise * (self.input_noise * length / z.shape[1] ** 0.5)
            noisy.append(moved * (length / torch.linalg.vector_norm(moved, dim=1, keepdim=True)))
        return noisy

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Loss of one batch of pairs."""
        codes = [self.dictionary.encode(z, m) for z, m in zip(self._inputs(batch), MODALITIES, strict=True)]
        self.record_firing(torch.stack([(code > 0).any(0) for code in codes]), len(batch.image))
        image, text = map(gather_batch, codes)
        loss = self.dictionary.loss(image, text)
        if self.is_logging_step:
            self.log_training(
                loss=loss,
                l0=torch.cat([(code > 0).sum(1) for code in codes]).float().mean(),
                dead_fraction=self.dead.float().mean(),
                temperature=(-self.dictionary.logit_scale).exp(),
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start counting anew, and keep codes for retrieval."""
        super().on_validation_epoch_start()
        self._codes: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        self._kept = 0

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Note which features fire, and the codes of as many pairs as retrieval is measured on."""
        with torch.autocast(self.device.type, enabled=False):
            codes = {modality: self.dictionary.encode(getattr(batch, modality), modality) for modality in MODALITIES}
        for modality, code in codes.items():
            if len(code):  # of several processes the last may have no pair of the last batch
                self._moments[modality].update_codes(code)
            if self._kept < RETRIEVAL_PAIRS:
                self._codes[modality].append(code)
        self._kept += place()[1] * len(batch.image)

    def on_validation_epoch_end(self) -> None:
        """Log the sparsity of either modality, and of the pairs that were kept the loss and retrieval.

        So neither depends on how many pairs a batch has, or on how many processes share them.
        """
        for modality, moments in self._moments.items():
            moments.merge_processes()
            quality = moments.sparsity()
            self.log_validation(**{f"{modality}/{name}": value for name, value in asdict(quality).items()})
        image, text = (self._first_codes(modality) for modality in MODALITIES)
        self.log_validation(loss=float(self.dictionary.loss(image, text)))
        for name, recalls in (
            ("image_to_text", recall_at_k(image, text, (1, 10))),
            ("text_to_image", recall_at_k(text, image, (1, 10))),
        ):
            self.log_validation(**{f"{name}_recall@{k}": value for k, value in recalls.items()})

    def _first_codes(self, modality: Modality) -> Tensor:
        """One modality's codes of the split's first pairs, in their order, from all processes."""
        steps = [rows_of_all_processes(codes) for codes in self._codes[modality]]
        return at_least_float32(torch.cat(steps)[:RETRIEVAL_PAIRS])
