"""LightningModules that train dictionaries: a shared base class, the SAE's module and the NCL head's module."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from jaxtyping import Bool
from torch import Tensor

from mmmono.core.errors import DictionaryError
from mmmono.core.ranges import check_number, check_whole
from mmmono.dictionaries.autoencoder import SparseAutoencoder
from mmmono.dictionaries.base import Dictionary
from mmmono.dictionaries.metrics import ReconstructionMoments, SparsityMoments
from mmmono.dictionaries.ncl import NCLHead, at_least_float32
from mmmono.dictionaries.parallel import any_over_processes, gather_batch, place, rows_of_all_processes
from mmmono.dictionaries.pools import PairedBatch
from mmmono.features.retrieval import recall_at_k
from mmmono.features.store import MODALITIES, Modality

RETRIEVAL_PAIRS = 5000  # validation pairs for recall@k, which depends on the number of candidates


class DictionaryModule(L.LightningModule):
    """Base module: Adam, its learning rate schedule, gradient clipping, and tracking of dead features.

    In distributed training, all counts and metrics cover the pairs of all processes.

    Args:
        dictionary: dictionary to train.
        lr: Adam's learning rate.
        warmup_steps: steps over which the learning rate rises linearly.
        decay_fraction: final fraction of the steps, over which the learning rate falls linearly to zero.
        dead_after: number of pairs after which a feature that has not fired counts as dead.
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
        check_number("lr", lr, above=0)
        check_whole("warmup_steps", warmup_steps, least=0)
        check_number("decay_fraction", decay_fraction, least=0, most=1)
        check_whole("dead_after", dead_after)
        self.dictionary = dictionary
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.decay_fraction = decay_fraction
        self.dead_after = dead_after
        # Pairs since each feature last fired, one row per modality; saved in the checkpoint.
        self.register_buffer("since_fired", torch.zeros(2, dictionary.num_features, dtype=torch.int64))
        self.register_buffer("_pairs_seen", torch.zeros((), dtype=torch.int64))
        self.since_fired: Tensor
        self._pairs_seen: Tensor

    @property
    def pairs_seen(self) -> int:
        """Number of pairs that all processes together have trained on."""
        return int(self._pairs_seen)

    @property
    def dead(self) -> Bool[Tensor, " features"]:
        """Mask of features that have not fired on either modality for `dead_after` pairs."""
        return (self.since_fired >= self.dead_after).all(0)

    def record_firing(self, fired: Bool[Tensor, "2 features"], pairs: int) -> None:
        """Record which features fired in a batch, merged over all processes.

        Args:
            fired: features that fired in this process's batch, one row per modality.
            pairs: pairs in this process's batch.
        """
        pairs *= place()[1]
        self.since_fired.add_(pairs).masked_fill_(any_over_processes(fired), 0)
        self._pairs_seen.add_(pairs)

    @property
    def is_logging_step(self) -> bool:
        """Whether to compute the metrics of this step: Lightning writes them at the last of every `log_every_n_steps`.

        It keeps what was logged at an earlier step until the end of an epoch, and would write that instead.
        """
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    def log_training(self, **metrics: Tensor) -> None:
        """Log training metrics under `train/`, averaged over all processes."""
        self.log_dict({f"train/{name}": value.detach().float() for name, value in metrics.items()}, sync_dist=True)

    def on_train_batch_start(self, batch: PairedBatch, batch_idx: int) -> None:
        """Raise DictionaryError if the batch's width differs from the dictionary's."""
        if batch.image.shape[1] != self.dictionary.dim:
            raise DictionaryError(
                f"the dictionary takes embeddings of width {self.dictionary.dim}, the store has {batch.image.shape[1]}"
            )

    def configure_optimizers(self) -> Any:
        """Adam with linear warm-up and a linear decay at the end."""
        fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters())
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, eps=6.25e-10, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        decay_steps = max(1, int(self.decay_fraction * steps))

        def scale(step: int) -> float:
            return min(1.0, (step + 1) / max(1, self.warmup_steps), max(0.0, (steps - step) / decay_steps))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Unscale the gradients of float16 training before they are projected and clipped.

        Lightning leaves unscaling to fused optimizers, which do it in their step, after clipping. The scaler remembers
        non-finite gradients; the optimizer step then changes nothing.
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
        """Clip the gradients, which `on_before_optimizer_step` has unscaled, by value or by norm."""
        if not gradient_clip_val:
            return
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def log_validation(self, **metrics: float) -> None:
        """Log validation metrics under `val/`; they must be equal in all processes."""
        self.log_dict({f"val/{name}": float(value) for name, value in metrics.items()}, sync_dist=True)


class SAEModule(DictionaryModule):
    """Train one sparse autoencoder on both modalities (Eq. 2, 3).

    Each step: backward, remove the gradient component along each decoder atom, clip, optimizer step, renormalize the
    atoms. In any other order, the saved atoms would not have unit norm, or Adam's moments would push along them.

    Args:
        dictionary: the autoencoder.
        auxk: number of dead latents in the auxiliary loss (`SparseAutoencoder.auxiliary_loss`); 0 disables it.
        auxk_coefficient: weight of the auxiliary loss.
        penalty_warmup_steps: steps over which the weight of the dictionary's penalty, if it has one, rises
            linearly.
        **settings: see `DictionaryModule`.
    """

    dictionary: SparseAutoencoder

    def __init__(
        self,
        dictionary: SparseAutoencoder,
        auxk: int = 0,
        auxk_coefficient: float = 1 / 32,
        penalty_warmup_steps: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(dictionary, **settings)
        check_whole("auxk", auxk, least=0)
        check_number("auxk_coefficient", auxk_coefficient, least=0)
        check_whole("penalty_warmup_steps", penalty_warmup_steps, least=0)
        self.penalty_warmup_steps = penalty_warmup_steps
        self.auxk = auxk
        self.auxk_coefficient = auxk_coefficient

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch of pairs."""
        output = self.dictionary(batch.image, batch.text)
        loss = output.loss
        if output.penalty is not None:
            loss = loss + min(1.0, (self.global_step + 1) / max(1, self.penalty_warmup_steps)) * output.penalty
        self.record_firing(output.fired, len(batch.image))
        if self.auxk:
            dead = self.dictionary.dead_rows(self.since_fired >= self.dead_after)
            auxiliary = self.dictionary.auxiliary_loss(output, dead, self.auxk)
            loss = loss + self.auxk_coefficient * auxiliary
        if self.is_logging_step:
            self.log_training(loss=loss, l0=output.l0, dead_fraction=self.dead.float().mean())
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remove the gradient component along each atom, after backward and before clipping."""
        super().on_before_optimizer_step(optimizer)
        self.dictionary.project_decoder_gradient()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then renormalize the atoms to unit norm."""
        super().optimizer_step(*args, **kwargs)
        self.dictionary.normalize_decoder_()

    def on_validation_epoch_start(self) -> None:
        """Reset the validation metrics."""
        self._moments = {
            modality: ReconstructionMoments(self.dictionary.dim, self.dictionary.num_features, self.device)
            for modality in MODALITIES
        }

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Add a batch to the validation metrics, without autocast."""
        with torch.autocast(self.device.type, enabled=False):
            for modality in MODALITIES:
                embeddings = getattr(batch, modality)
                codes = self.dictionary.encode(embeddings, modality)
                self._moments[modality].add(embeddings, self.dictionary.decode(codes, modality), codes)

    def on_validation_epoch_end(self) -> None:
        """Log reconstruction quality and sparsity of each modality on the whole split."""
        for modality, moments in self._moments.items():
            moments.merge_processes()
            for name, value in asdict(moments.result()).items():
                self.log_validation(**{f"{modality}/{name}": value})


class NCLModule(DictionaryModule):
    """Train the non-negative contrastive head (Eq. 4); negatives come from all processes.

    Args:
        dictionary: the head.
        input_noise: expected norm of the Gaussian noise added to each training embedding, relative to the embedding's
            norm, which is restored afterwards. Prevents overfitting to a few thousand pairs; millions need none.
        **settings: see `DictionaryModule`.
    """

    dictionary: NCLHead

    def __init__(self, dictionary: NCLHead, input_noise: float = 0.0, **settings: Any) -> None:
        super().__init__(dictionary, **settings)
        check_number("input_noise", input_noise, least=0)
        self.input_noise = input_noise

    def _inputs(self, batch: PairedBatch) -> list[Tensor]:
        """Embeddings of both modalities, with noise if `input_noise` is set.

        The batch index seeds the noise, so that a resumed run draws the same. Every process draws the noise of the
        whole batch and takes its own rows.
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
            moved_length = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
            noisy.append(moved * (length / moved_length.clamp_min(torch.finfo(z.dtype).tiny)))  # 0 for zero vectors
        return noisy

    def on_fit_start(self) -> None:
        """Read which validation pairs are one group: retrieval may return any of them."""
        self._groups = self.trainer.datamodule.val.groups()[:RETRIEVAL_PAIRS]

    def training_step(self, batch: PairedBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch of pairs."""
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
        """Reset the validation metrics and the codes kept for retrieval."""
        self._moments = {
            modality: SparsityMoments(self.dictionary.num_features, self.device) for modality in MODALITIES
        }
        self._codes: dict[str, list[Tensor]] = {modality: [] for modality in MODALITIES}
        self._kept = 0

    def validation_step(self, batch: PairedBatch, batch_idx: int) -> None:
        """Add a batch to the sparsity metrics, and keep the codes of the first `RETRIEVAL_PAIRS` pairs."""
        with torch.autocast(self.device.type, enabled=False):
            codes = {modality: self.dictionary.encode(getattr(batch, modality), modality) for modality in MODALITIES}
        for modality, code in codes.items():
            if len(code):  # with several processes, the last batch may be empty
                self._moments[modality].add(code)
            if self._kept < RETRIEVAL_PAIRS:
                self._codes[modality].append(code)
        self._kept += place()[1] * len(batch.image)

    def on_validation_epoch_end(self) -> None:
        """Log the sparsity of each modality, and the loss and retrieval recall on the kept pairs.

        Because their number is fixed, loss and recall depend neither on the batch size nor on the number of processes.
        """
        for modality, moments in self._moments.items():
            moments.merge_processes()
            sparsity = asdict(moments.result())
            self.log_validation(**{f"{modality}/{name}": value for name, value in sparsity.items()})
        image, text = (self._first_codes(modality) for modality in MODALITIES)
        self.log_validation(loss=float(self.dictionary.loss(image, text)))
        groups = self._groups[: len(image)]  # `trainer.limit_val_batches` may leave pairs out
        for name, recalls in (
            ("image_to_text", recall_at_k(image, text, (1, 10), groups)),
            ("text_to_image", recall_at_k(text, image, (1, 10), groups)),
        ):
            self.log_validation(**{f"{name}_recall@{k}": value for k, value in recalls.items()})

    def _first_codes(self, modality: Modality) -> Tensor:
        """Codes of the first `RETRIEVAL_PAIRS` validation pairs, in order, gathered from all processes."""
        steps = [rows_of_all_processes(codes) for codes in self._codes[modality]]
        return at_least_float32(torch.cat(steps)[:RETRIEVAL_PAIRS])
