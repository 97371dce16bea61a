"""Small models of every family that makes masks, with random weights, saved as their libraries save them."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

__all__ = ["save_clipseg", "save_grounding_dino", "save_onnx", "save_sam", "save_sam3", "save_segformer"]


def clip_tokenizer(folder: Path, **more: object):
    """Every letter is a word."""
    import transformers

    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in string.ascii_lowercase:
        for ending in ("", "</w>"):
            vocabulary[letter + ending] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), unk_token="<|endoftext|>", **more
    )


def save_clipseg(folder: Path) -> Path:
    import transformers as hf

    torch.manual_seed(0)
    part = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = hf.CLIPSegConfig(
        text_config=part
        | {"vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config=part | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
        extract_layers=[0, 1, 2],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=8,
        conditional_layer=0,
    )
    hf.CLIPSegForImageSegmentation(config).save_pretrained(folder)
    pictures = hf.ViTImageProcessor(size={"height": 32, "width": 32})
    hf.CLIPSegProcessor(pictures, clip_tokenizer(folder)).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def save_sam(folder: Path) -> Path:
    import transformers as hf

    torch.manual_seed(0)
    config = hf.SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "mlp_dim": 16,
            "window_size": 4,
            "global_attn_indexes": [1],
            "num_pos_feats": 4,
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_dim": 16,
            "iou_head_hidden_dim": 8,
            "attention_downsample_rate": 2,
        },
    )
    model = hf.SamModel(config)
    with torch.no_grad():
        for weight in model.parameters():  # or all logits are 0 but for rounding
            weight.mul_(20 if weight.ndim > 1 else 1)
    model.save_pretrained(folder)
    pictures = hf.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    hf.SamProcessor(pictures).save_pretrained(folder)
    return folder


def save_sam3(folder: Path) -> Path:
    import transformers as hf

    torch.manual_seed(0)
    part = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = hf.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **part,
                "num_hidden_layers": 2,
                "image_size": 56,
                "patch_size": 14,
                "pretrain_image_size": 56,
                "window_size": 2,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            **part,
            "num_hidden_layers": 1,
            "vocab_size": 64,
            "max_position_embeddings": 32,
            "projection_dim": 32,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        geometry_encoder_config=part | {"num_layers": 1},
        detr_encoder_config=part | {"num_layers": 1},
        detr_decoder_config=part | {"num_layers": 1, "num_queries": 5},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    hf.Sam3Model(config).save_pretrained(folder)
    pictures = hf.Sam3ImageProcessor(size={"height": 56, "width": 56})
    tokenizer = clip_tokenizer(folder, pad_token="<|endoftext|>")
    hf.Sam3Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def save_segformer(folder: Path, labels: tuple[str, ...] = ("cat", "dog", "sky")) -> Path:
    import transformers as hf

    torch.manual_seed(0)
    config = hf.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
    )
    hf.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    hf.SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path) -> Path:
    import transformers as hf

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "cat", "dog", "?"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(words))
    backbone = hf.SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1],
        num_heads=[1, 1, 1],
        window_size=2,
        out_features=["stage2", "stage3"],
    )
    text = {
        "model_type": "bert",
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 64,
    }
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = hf.GroundingDinoConfig(
        **{"backbone_config": backbone, "text_config": text, "d_model": 32, "num_queries": 6, **layers},
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_feature_levels=3,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=16,
    )
    hf.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pictures = hf.GroundingDinoImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    hf.GroundingDinoProcessor(pictures, hf.BertTokenizerFast(str(folder / "words.txt"))).save_pretrained(folder)
    return folder


def save_onnx(
    path: Path,
    *,
    size: int | str = 16,
    batch: int | str = 1,
    gain: float = 1.0,
    sigmoid: bool = False,
    channels: int = 1,
) -> Path:
    """Red less blue, times ``gain``, at the input's size: an object is what is red."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.tile(np.array([gain, 0, -gain], np.float32).reshape(1, 3, 1, 1), (channels, 1, 1, 1))
    nodes = [helper.make_node("Conv", ["image", "weight"], ["red"])]
    if sigmoid:
        nodes.append(helper.make_node("Sigmoid", ["red"], ["plane"]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [
            helper.make_tensor_value_info(
                "plane" if sigmoid else "red", TensorProto.FLOAT, [batch, channels, size, size]
            )
        ],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path
