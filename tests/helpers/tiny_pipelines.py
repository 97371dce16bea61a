"""Text-to-image pipelines of diffusers with a few thousand random weights, built here and saved to a folder."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch


def _text(folder: Path, hidden: int) -> tuple[Any, Any]:
    """A tokenizer of single letters and a text encoder."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz,"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=hidden, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=hidden, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )  # fmt: skip
    return tokenizer, CLIPTextModel(config).eval()


def stable_diffusion(folder: Path) -> Path:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer, encoder = _text(folder / "words", 8)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae,
        encoder,
        tokenizer,
        unet,
        DDIMScheduler(steps_offset=1, clip_sample=False),
        None,
        None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def wuerstchen(folder: Path) -> Path:
    from diffusers import DDPMWuerstchenScheduler, WuerstchenCombinedPipeline

    home = importlib.import_module(
        WuerstchenCombinedPipeline.__module__.rpartition(".")[0]
    )  # it moves between versions

    torch.manual_seed(0)
    tokenizer, encoder = _text(folder / "words", 8)
    prior_tokenizer, prior_encoder = _text(folder / "words", 8)
    pipeline = WuerstchenCombinedPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        decoder=home.WuerstchenDiffNeXt(
            c_cond=8, c_hidden=[8], nhead=[-1], blocks=[1], level_config=["CT"], clip_embd=8, inject_effnet=[False]
        ),
        scheduler=DDPMWuerstchenScheduler(),
        vqgan=home.PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, levels=2, embed_dim=4),
        prior_tokenizer=prior_tokenizer,
        prior_text_encoder=prior_encoder,
        prior_prior=home.WuerstchenPrior(c_in=2, c=8, depth=1, c_cond=8, c_r=8, nhead=2),
        prior_scheduler=DDPMWuerstchenScheduler(),
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def wuerstchen_as_published(folder: Path) -> Path:
    """In two halves, decoder and prior, with the library names of the published model_index.json."""
    whole = wuerstchen(folder)
    classes = {"vqgan": "PaellaVQModel", "decoder": "WuerstchenDiffNeXt", "prior": "WuerstchenPrior"}
    halves = {
        "half": ("WuerstchenDecoderPipeline", ("decoder", "vqgan", "scheduler", "text_encoder", "tokenizer"), ""),
        "half-prior": ("WuerstchenPriorPipeline", ("prior", "scheduler", "text_encoder", "tokenizer"), "prior_"),
    }
    index = json.loads((whole / "model_index.json").read_text())
    for name, (kind, parts, prefix) in halves.items():
        entries = {part: ["wuerstchen", classes[part]] if part in classes else index[prefix + part] for part in parts}
        for part in parts:
            shutil.copytree(whole / (prefix + part), folder / name / part)
        content = {"_class_name": kind, "_diffusers_version": "0.21.0", **entries, "latent_dim_scale": 10.67}
        (folder / name / "model_index.json").write_text(json.dumps(content))
    return folder / "half"
