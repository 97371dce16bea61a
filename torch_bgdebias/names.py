"""Names that help texts, checks and pages share. This file imports nothing: ``bgdebias --help`` reads it without torch.

An order here is the order in which names are listed to a user.
"""

#: what ImageNet-9's challenge makes of a masked image, beside the original (Xiao et al., 2020, arXiv 2006.09994)
VARIANTS = ("only_fg", "only_bg_b", "only_bg_t", "no_fg", "mixed_same", "mixed_rand", "mixed_next")
#: those of them that take a background from another image
MIXED_VARIANTS = ("mixed_same", "mixed_rand", "mixed_next")
#: those of them in which the object is missing
OBJECTLESS_VARIANTS = ("no_fg", "only_bg_b", "only_bg_t")
#: the image as it is, beside the variants
ORIGINAL = "original"

#: heatmaps that any classifier gives; an ISNet explains itself as well ("isnet")
ATTRIBUTIONS = ("grad_cam", "kernel_shap", "lrp")
#: what the probe computes from predictions on variants
METRICS = ("accuracy", "bg_gap", "decision_consistency", "feature_consistency")
#: one concept vector for all images, or one an image
CONCEPT_METHODS = ("net2vec", "loce")
#: how a background comes into an image: everything outside the mask, or the cells of a Voronoi diagram
PATTERNS = ("paste", "voronoi")
#: corrections for many tests at once
CORRECTIONS = ("holm", "benjamini-hochberg")
#: how mask files say what is object: found out, two values, label numbers, grey levels, transparency, label colours
MASK_ENCODINGS = ("auto", "binary", "index", "soft", "alpha", "colour")
#: how pictures are resized, always with anti-aliasing
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
#: what is done with a file that cannot be read, or an image without its mask
ON_ERROR = ("raise", "skip")
#: what ``bgdebias demo`` trains; the first is what the others are compared with
DEMO_METHODS = {
    "baseline": "cross-entropy on the images as they are",
    "swap": "backgrounds exchanged for random ones",
    "clad": "CLAD, contrastive",
    "clad+": "CLAD with cross-entropy on the swapped images too",
}
#: how several outputs of a network score one class of the data
SUPERCLASS_SCORES = ("best", "sum")
