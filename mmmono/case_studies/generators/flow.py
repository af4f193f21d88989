"""A small generative model of images given an embedding: conditional flow matching on principal components.

Images are represented by their first principal components. A multilayer perceptron predicts these components from a
mixture with noise, given the embedding of the image or of its caption (Lipman et al. 2023). It predicts the image, not
the velocity, as Li and He 2025 advise for high-dimensional data. Generation integrates the flow from noise to an image.
It works like Stable Diffusion, but trains on a CPU in two minutes: images have 64 × 64 pixels and are blurred where the
model is uncertain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mmmono.core.artifacts import write_text_atomically
from mmmono.core.errors import ModelError
from mmmono.core.progress import progress_bar

CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.safetensors"
FREQUENCIES = 32  # number of sine and cosine features of the time
UNCONDITIONAL = 0.1  # share of samples that are trained without embedding, for classifier-free guidance
LATEST = 0.8  # the loss weight 1 / (1 − time)², which gives the error of the velocity, is capped at this time


@dataclass(kw_only=True, frozen=True)
class FlowPlan:
    """Settings of a flow and its training.

    Attributes:
        pixels: side of the images in pixels.
        components: number of principal components; fewer if there are not as many images or values of an image.
        width, depth: hidden width and number of blocks of the perceptron.
        train_steps, batch_size, lr: of AdamW; the learning rate decays linearly.
        embedding_noise: maximum norm of the noise added to embeddings, relative to their mean norm, so that the flow
            also covers embeddings between those of the training data.
    """

    pixels: int = 64
    components: int = 512
    width: int = 768
    depth: int = 3
    train_steps: int = 1500
    batch_size: int = 256
    lr: float = 1e-3
    embedding_noise: float = 0.4

    def plan_recipe(self) -> dict[str, float]:
        """Everything that determines the training, except its data and seed, under the names that recipes have."""
        plan = {field.name: getattr(self, field.name) for field in fields(FlowPlan)}
        plan["steps"] = plan.pop("train_steps")
        return {**plan, "unconditional": UNCONDITIONAL}


class ImageFlow(nn.Module):
    """Conditional flow model p(image | embedding).

    Args:
        dim: width of the embeddings.
        components: number of principal components.
        pixels: side of the images in pixels.
        width, depth: hidden width and number of blocks of the perceptron.
    """

    def __init__(self, dim: int, components: int, pixels: int, width: int, depth: int) -> None:
        super().__init__()
        self.config = {"dim": dim, "components": components, "pixels": pixels, "width": width, "depth": depth}
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor
        self.length: Tensor
        self.register_buffer("mean", torch.zeros(3 * pixels**2))
        self.register_buffer("basis", torch.zeros(components, 3 * pixels**2))
        self.register_buffer("scale", torch.ones(()))  # standard deviation of all components together
        self.register_buffer("length", torch.ones(()))  # mean norm of the image embeddings
        self.read = nn.Linear(components, width)
        self.embedding = nn.Linear(dim, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.write = nn.Linear(width, components)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)

    def forward(
        self,
        noisy: Float[Tensor, "batch components"],
        time: Float[Tensor, " batch"],
        embedding: Float[Tensor, "batch dim"],
    ) -> Float[Tensor, "batch components"]:
        """Predict the image's components from `noisy` = time · image + (1 − time) · noise.

        An all-zero embedding gives the unconditional prediction.
        """
        angles = time[:, None] * torch.exp(torch.linspace(0, 6, FREQUENCIES, device=time.device))
        # Scales the root mean square of the entries to about ½, whatever the norm and width of the embeddings.
        scaled = embedding * (0.5 * embedding.shape[1] ** 0.5 / self.length)
        condition = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.embedding(scaled))
        hidden = self.read(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.write(hidden)

    @torch.inference_mode()
    def draw(
        self,
        embeddings: Float[Tensor, "images dim"],
        noise: Float[Tensor, "images components"],
        steps: int,
        guidance: float,
    ) -> UInt8[Tensor, "images height width 3"]:
        """Generate images by integrating the flow from noise with Euler steps.

        Args:
            embeddings: embeddings to condition on.
            noise: standard normal noise.
            steps: number of equal time steps.
            guidance: scale of classifier-free guidance; 1 is without guidance.

        Returns:
            RGB images with values from 0 to 255.
        """
        state = noise
        both = torch.cat([embeddings, torch.zeros_like(embeddings)])
        for step in range(steps):
            now = torch.full((len(both),), step / steps, device=noise.device)
            given, free = self(torch.cat([state, state]), now, both).chunk(2)
            clean = free + guidance * (given - free)
            # dx/dt = (clean − x) / (1 − t), over a step of 1 / steps.
            state = state + (clean - state) / (steps - step)
        pixels = torch.addmm(self.mean, state * self.scale, self.basis).clamp(0, 1)
        side = self.config["pixels"]
        return (255 * pixels).round().byte().view(-1, 3, side, side).permute(0, 2, 3, 1)

    def save_pretrained(self, folder: Path, extra: dict[str, object]) -> None:
        """Write weights and configuration to a folder; `extra` is stored in the configuration."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / WEIGHTS_FILE)
        write_text_atomically(folder / CONFIG_FILE, json.dumps({"flow": self.config, **extra}, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path) -> tuple[Self, dict[str, object]]:
        """Load a flow in evaluation mode, and the `extra` saved with it. Raises ModelError if it is not readable."""
        try:
            extra = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            flow = cls(**extra.pop("flow"))
            flow.load_state_dict(load_file(folder / WEIGHTS_FILE))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"{folder} holds no readable embedding decoder ({error}): delete it to train it anew"
            ) from error
        return flow.eval().requires_grad_(False), extra


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.modulate(condition).chunk(2, -1)
        return hidden + self.down(F.gelu(self.up(self.norm(hidden) * (1 + gain) + shift)))


def fit_flow(
    targets: UInt8[Tensor, "images height width 3"],
    image: Float[Tensor, "images dim"],
    text: Float[Tensor, "images dim"],
    plan: FlowPlan,
    seed: int,
) -> tuple[ImageFlow, float]:
    """Train a flow on images and the embeddings of the images and of their captions.

    Each sample is conditioned on the embedding of its image or of its caption with probability ½, so that both generate
    the same image. Runs on the CPU and does not change the global random state.

    Args:
        targets: images of side `plan.pixels`.
        image, text: embeddings of the images and of their captions, row by row.
        plan: settings.
        seed: seed of initialization and training.

    Returns:
        The flow, and the mean loss over the last tenth of the steps.

    Raises:
        ModelError: there are fewer than two images.
    """
    if len(targets) < 2:
        raise ModelError(f"an embedding decoder cannot be trained on {len(targets)} images: it takes at least two")
    components = min(plan.components, len(targets) - 1, 3 * plan.pixels**2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = ImageFlow(image.shape[1], components, plan.pixels, plan.width, plan.depth)
        pixels = targets.permute(0, 3, 1, 2).flatten(1).float() / 255
        flow.mean.copy_(pixels.mean(0))
        _, _, basis = torch.pca_lowrank(pixels - flow.mean, components, center=False, niter=2)
        flow.basis.copy_(basis.T)
        latents = (pixels - flow.mean) @ basis
        flow.scale.copy_(latents.std())
        flow.length.copy_(torch.linalg.vector_norm(image, dim=1).mean())
        loss = _train(flow, latents / flow.scale, image, text, plan)
    return flow.eval().requires_grad_(False), loss


def _train(flow: ImageFlow, latents: Tensor, image: Tensor, text: Tensor, plan: FlowPlan) -> float:
    optimizer = torch.optim.AdamW(flow.parameters(), plan.lr, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * (1 - step / plan.train_steps)
    )
    noise_scale = plan.embedding_noise * float(flow.length) / image.shape[1] ** 0.5
    fast = torch.cpu._is_avx512_bf16_supported()  # without it, bfloat16 is emulated and slower
    losses = []
    with progress_bar() as bar:
        for _ in bar.track(range(plan.train_steps), description="train embedding decoder"):
            rows = torch.randint(len(latents), (plan.batch_size,))
            embedding = torch.where(torch.rand(len(rows), 1) < 0.5, image[rows], text[rows])
            embedding = embedding + noise_scale * torch.rand(len(rows), 1) * torch.randn_like(embedding)
            embedding = embedding * (torch.rand(len(rows), 1) >= UNCONDITIONAL)
            time = torch.randn(len(rows)).sigmoid()
            clean = latents[rows]
            noisy = torch.lerp(torch.randn_like(clean), clean, time[:, None])
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                predicted = flow(noisy, time, embedding)
            error = (predicted.float() - clean).square().mean(1)
            loss = (error / (1 - time.clamp(max=LATEST)).square()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)
