"""Which ImageNet classes show an object of VOC or COCO, so that backgrounds with it can be filtered out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

__all__ = ["IMAGENET_OBJECTS", "OTHER_SPELLINGS", "forbidden_objects"]

#: class of VOC, or of COCO where VOC has none -> WordNet ids of ImageNet's 1000 classes, as digits. Everything below
#: the class's own nouns in WordNet 3.0 (NOTICE): experiments/wordnet has the nouns, and prints this table
_IDS = {
    "aeroplane": "02690373",
    "bicycle": "02835271 03792782",
    "bird": """
        01514668 01514859 01518878 01530575 01531178 01532829 01534433 01537544 01558993 01560419 01580077
        01582220 01592084 01601694 01608432 01614925 01616318 01622779 01795545 01796340 01797886 01798484
        01806143 01806567 01807496 01817953 01818515 01819313 01820546 01824575 01828970 01829413 01833805
        01843065 01843383 01847000 01855032 01855672 01860187 02002556 02002724 02006656 02007558 02009229
        02009912 02011460 02012849 02013706 02017213 02018207 02018795 02025239 02027492 02028035 02033041
        02037110 02051845 02056570 02058221
    """,
    "boat": """
        02687172 02951358 03095699 03344393 03447447 03662601 03673027 03947888 04273569 04347754 04606251
        04612504
    """,
    "bottle": "02823428 03937543 03983396 04557648 04560804 04579145 04591713",
    "bus": "03769881 04146614 04487081",
    "car": "02701002 02814533 02930766 03100240 03594945 03670208 03770679 03777568 04037443 04285008",
    "cat": """
        02123045 02123159 02123394 02123597 02124075 02125311 02127052 02128385 02128757 02128925 02129165
        02129604 02130308
    """,
    "chair": "02791124 03376595 04099969 04429376",
    "cow": "02403003 02408429 02410509",
    "diningtable": "03201208",
    "dog": """
        02085620 02085782 02085936 02086079 02086240 02086646 02086910 02087046 02087394 02088094 02088238
        02088364 02088466 02088632 02089078 02089867 02089973 02090379 02090622 02090721 02091032 02091134
        02091244 02091467 02091635 02091831 02092002 02092339 02093256 02093428 02093647 02093754 02093859
        02093991 02094114 02094258 02094433 02095314 02095570 02095889 02096051 02096177 02096294 02096437
        02096585 02097047 02097130 02097209 02097298 02097474 02097658 02098105 02098286 02098413 02099267
        02099429 02099601 02099712 02099849 02100236 02100583 02100735 02100877 02101006 02101388 02101556
        02102040 02102177 02102318 02102480 02102973 02104029 02104365 02105056 02105162 02105251 02105412
        02105505 02105641 02105855 02106030 02106166 02106382 02106550 02106662 02107142 02107312 02107574
        02107683 02107908 02108000 02108089 02108422 02108551 02108915 02109047 02109525 02109961 02110063
        02110185 02110341 02110627 02110806 02110958 02111129 02111277 02111500 02111889 02112018 02112137
        02112350 02112706 02113023 02113186 02113624 02113712 02113799 02113978
    """,
    "horse": "02389026",
    "motorbike": "03785016 03791053",
    "person": "09835506 10148035 10565667",
    "pottedplant": "03991062",
    "sheep": "02412080 02415577",
    "sofa": "04344873",
    "train": "02917067 03272562 03393912 03895866 04310018",
    "tvmonitor": "03180011 03782006 04152593 04404412",
    "truck": "03345487 03417042 03770679 03796401 03930630 03977966 04461696 04467665",
    "traffic light": "06874185",
    "stop sign": "06794110",
    "parking meter": "03891332",
    "bench": "03891251",
    "elephant": "02504013 02504458",
    "bear": "02132136 02133161 02134084 02134418",
    "zebra": "02391049",
    "giraffe": "",
    "backpack": "02769748",
    "umbrella": "04507155",
    "handbag": "04026417",
    "tie": "02865351 02883205 04591157",
    "suitcase": "",
    "frisbee": "",
    "skis": "04228054",
    "snowboard": "",
    "sports ball": "02799071 02802426 03134739 03445777 03942813 04023962 04118538 04254680 04409515 04540053",
    "kite": "",
    "baseball bat": "",
    "baseball glove": "",
    "skateboard": "",
    "surfboard": "",
    "tennis racket": "04039381",
    "wine glass": "02823750 03443371",
    "cup": "03063599",
    "fork": "",
    "knife": "03041632 03658185",
    "spoon": "04597913",
    "bowl": "03775546 04263257",
    "banana": "07753592",
    "apple": "07742313",
    "sandwich": "07697313 07697537",
    "orange": "07747607",
    "broccoli": "07714990",
    "carrot": "",
    "hot dog": "07697537",
    "pizza": "07873807",
    "donut": "",
    "cake": "",
    "bed": "03388549",
    "toilet": "04447861",
    "laptop": "03642806",
    "mouse": "03793489",
    "remote": "04074963",
    "keyboard": "03085013 04505470",
    "cell phone": "02992529",
    "microwave": "03761084",
    "oven": "03259280 04111531",
    "toaster": "04442312",
    "sink": "04553703",
    "refrigerator": "04070727",
    "fire hydrant": "",
    "book": "06596364",
    "clock": "02708093 03196217 03197337 04548280",
    "vase": "04522168",
    "scissors": "",
    "teddy bear": "04399382",
    "hair drier": "03483316",
    "toothbrush": "",
}

#: class -> WordNet ids of ImageNet's 1000 classes that show it; none where ImageNet has no such class
IMAGENET_OBJECTS: Mapping[str, tuple[str, ...]] = {
    name: tuple(f"n{digits}" for digits in ids.split()) for name, ids in _IDS.items()
}
#: COCO's, and others', words for VOC's classes
OTHER_SPELLINGS: Mapping[str, str] = {
    "airplane": "aeroplane", "bike": "bicycle", "couch": "sofa", "dining table": "diningtable",
    "motorcycle": "motorbike", "potted plant": "pottedplant", "tv": "tvmonitor", "tv monitor": "tvmonitor",
}  # fmt: skip


def forbidden_objects(classes: Sequence[str]) -> dict[int, list[str]]:
    """The ``forbidden`` argument of `BackgroundBank.filter` that bars each class's own object from its backgrounds.

    A background that shows a bird makes a bird of every foreground, and a bird on it says nothing of the bird. On
    Background Bias of Post-Hoc Concept Embeddings (arXiv 2504.08602) chooses Places' pictures so.

    Args:
        classes: names of the labels 0, 1, ..., of VOC or COCO, in either's spelling.

    Returns:
        label -> WordNet ids, for ``bank.filter(classifier, forbidden_objects(classes))``. Labels whose object is none
        of ImageNet's classes are left out, with a warning that names them: a classifier of those cannot see it.

    Raises:
        KeyError: a name that is neither VOC's nor COCO's.

    Example:
        >>> forbidden_objects(["sofa", "banana"])
        {0: ['n04344873'], 1: ['n07753592']}
    """
    forbidden, blind, unknown = {}, [], []
    for label, name in enumerate(classes):
        word = name.casefold().replace("_", " ").strip()
        ids = IMAGENET_OBJECTS.get(OTHER_SPELLINGS.get(word, word))
        if ids is None:
            unknown.append(name)
        elif ids:
            forbidden[label] = list(ids)
        else:
            blind.append(name)
    if unknown:
        raise KeyError(f"classes: expected names of VOC or COCO, got {unknown}; pass bank.filter a mapping of your own")
    if blind:
        warnings.warn(
            f"forbidden_objects: ImageNet has no class for {', '.join(blind)}: backgrounds are not kept from them",
            stacklevel=2,
        )
    return forbidden
