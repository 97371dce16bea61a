"""Makers from transformers, with small models of random weights: the same masks as the library's own calls give."""

from __future__ import annotations

import pytest
import small_mask_models as small
import torch
from torch.nn.functional import interpolate

from torch_bgdebias.masks import Hints, MaskMakingError, mask_maker
from torch_bgdebias.masks.making import transformers as makers

hf = pytest.importorskip("transformers")
IMAGES = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
BOXES = [torch.tensor([[2, 3, 12, 20], [1, 1, 9, 9]]), torch.tensor([[0, 4, 20, 28]])]
TEXTS = Hints(["cat", "dog"], [None, None])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sam(place):
    return small.save_sam(place / "sam")


def arrays(images=IMAGES):
    return [image.mul(255).round().byte().permute(1, 2, 0).numpy() for image in images]


def bilinear(planes):
    return interpolate(planes, (20, 30), mode="bilinear", align_corners=False)


def test_clipseg(place):
    folder = small.save_clipseg(place / "clipseg")
    maker = mask_maker(f"transformers:{folder}")
    outcome = maker(IMAGES, TEXTS)
    model = hf.CLIPSegForImageSegmentation.from_pretrained(folder).eval()
    inputs = hf.AutoProcessor.from_pretrained(folder)(text=["cat", "dog"], images=arrays(), return_tensors="pt")
    with torch.no_grad():
        expected = torch.sigmoid(bilinear(model(**inputs).logits[:, None]))[:, 0]
    torch.testing.assert_close(outcome.mask, expected)
    alone = maker(IMAGES[1:], Hints(["dog"], [None]))
    torch.testing.assert_close(alone.mask, outcome.mask[1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(maker(IMAGES[1:], Hints(["cat"], [None])).mask, alone.mask)
    assert (maker.takes, maker.needs) == (frozenset({"text"}), frozenset({"text"}))
    assert str(maker.licence) == "apache-2.0 (the model card in clipseg)"
    with pytest.raises(MaskMakingError, match="expected what the object is called; give --prompt, or class folders"):
        maker(IMAGES, Hints.none(2))


def test_sam_takes_its_best_mask_of_each_box(sam):
    maker = mask_maker(f"transformers:{sam}")
    outcome = maker(IMAGES, Hints([None, None], BOXES))
    model, processor = hf.SamModel.from_pretrained(sam).eval(), hf.SamProcessor.from_pretrained(sam)
    for image, boxes, mask in zip(arrays(), BOXES, outcome.mask, strict=True):
        corners = [[[left, top, right, bottom] for top, left, bottom, right in boxes.tolist()]]
        inputs = processor(image, input_boxes=corners, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        masks = processor.image_processor.post_process_masks(
            outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0]
        best = outputs.iou_scores[0].argmax(1)
        joint = torch.stack([masks[box, choice] for box, choice in enumerate(best)]).any(0)
        assert torch.equal(mask > 0.5, joint)
    nothing = maker(IMAGES[:1], Hints.none(1))
    assert nothing.mask.sum() == nothing.confidence == 0
    assert maker.needs == {"boxes"}


def test_sam_3_finds_what_a_text_says(place, monkeypatch):
    folder = small.save_sam3(place / "sam3")
    maker = mask_maker(f"transformers:{folder}")
    assert maker(IMAGES, TEXTS).mask.sum() == 0, "nothing is as sure as it must be"
    monkeypatch.setattr(makers, "_LEAST_SCORE", 0.0)
    outcome = maker(IMAGES, TEXTS)
    model, processor = hf.Sam3Model.from_pretrained(folder).eval(), hf.Sam3Processor.from_pretrained(folder)
    inputs = processor(images=arrays(), text=["cat", "dog"], return_tensors="pt")
    with torch.no_grad():
        results = processor.post_process_instance_segmentation(
            model(**inputs), threshold=0.0, target_sizes=[(20, 30)] * 2
        )
    for mask, sure, result in zip(outcome.mask, outcome.confidence, results, strict=True):
        assert len(result["masks"]) == 5
        assert torch.equal(mask, result["masks"].amax(0).float())
        assert sure == result["scores"].max()


def test_a_detector_finds_the_boxes_that_sam_fills(place, sam, monkeypatch):
    folder = small.save_grounding_dino(place / "dino")
    maker = mask_maker(f"transformers:{folder}+{sam}")
    assert maker.name == f"transformers:{folder}+{sam}"
    monkeypatch.setattr(makers, "_LEAST_SCORE", 0.0)
    outcome = maker(IMAGES, TEXTS)
    model = hf.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = hf.AutoProcessor.from_pretrained(folder)
    inputs = processor(images=arrays(), text=["cat.", "dog."], padding=True, return_tensors="pt")
    with torch.no_grad():
        detected = processor.post_process_grounded_object_detection(
            model(**inputs), inputs["input_ids"], threshold=0.0, target_sizes=[(20, 30)] * 2
        )
    boxes = []
    for result in detected:
        left, top, right, bottom = result["boxes"].unbind(1)
        corners = torch.stack([top.floor(), left.floor(), bottom.ceil(), right.ceil()], 1).clamp(min=0)
        corners = torch.minimum(corners, torch.tensor([20.0, 30, 20, 30])).long()
        boxes.append(corners[(corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])])
    filled = mask_maker(f"transformers:{sam}")(IMAGES, Hints([None, None], boxes))
    torch.testing.assert_close(outcome.mask, filled.mask)
    scores = torch.stack([result["scores"].max() for result in detected])
    torch.testing.assert_close(outcome.confidence, filled.confidence * scores)
    with pytest.raises(ValueError, match=r"finds boxes; name a SAM too: transformers:.*dino\+SAM_MODEL"):
        mask_maker(f"transformers:{folder}")


def test_a_network_of_classes_gives_the_share_of_the_one_that_is_meant(place, sam):
    folder = small.save_segformer(place / "segformer")
    maker = mask_maker(f"transformers:{folder}")
    outcome = maker(IMAGES, TEXTS)
    model = hf.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    inputs = hf.AutoImageProcessor.from_pretrained(folder)(arrays(), return_tensors="pt")
    with torch.no_grad():
        shares = bilinear(model(**inputs).logits).softmax(1)
    torch.testing.assert_close(outcome.mask, torch.stack([shares[0, 0], shares[1, 1]]))
    with pytest.raises(MaskMakingError, match=r"expected one of its classes \(cat, dog, sky\), got 'horse'"):
        maker(IMAGES, Hints(["horse", "cat"], [None, None]))
    with pytest.raises(ValueError, match=r"expected a SAM after the \+"):
        mask_maker(f"transformers:{folder}+{folder}")


def test_what_is_no_maker(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder"):
        mask_maker(f"transformers:{tmp_path / 'nowhere'}")
    hf.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected clipseg, sam, sam2, sam_hq, sam3, .* got a bert"):
        mask_maker(f"transformers:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(ValueError, match="code from elsewhere is not run: export the model to ONNX"):
        mask_maker(f"transformers:{tmp_path}")
