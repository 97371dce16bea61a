"""Groups of scene categories and the objects that each scene contains by nature: tables for Places365."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.objects import OTHER_SPELLINGS
from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank
from torch_bgdebias.checks import describe

__all__ = ["PLACES_GROUPS", "SCENES_WITH", "forbid_scenes", "scene_groups"]

_GROUPS = {
    "architecture": """
        aqueduct arch apartment_building/outdoor balcony/exterior building_facade castle church/outdoor
        courthouse embassy hotel/outdoor house kasbah library/outdoor lighthouse mansion mausoleum
        mosque/outdoor museum/outdoor office_building pagoda palace ruin schoolhouse skyscraper
        synagogue/outdoor temple/asia tower viaduct
    """,
    "indoors": """
        alcove attic basement bathroom bedchamber bedroom bow_window/indoor childs_room closet computer_room
        corridor dining_room dorm_room home_office hotel_room kitchen living_room office pantry playroom shower
        staircase storage_room television_room utility_room
    """,
    "at_water": """
        beach canal/natural coast creek fishpond hot_spring islet lagoon lake/natural marsh ocean pond river
        swamp swimming_hole waterfall watering_hole wave
    """,
    "machinery": "assembly_line auto_factory clean_room engine_room industrial_area oilrig server_room",
    "open_lands": "badlands butte canyon cliff desert/sand desert/vegetation rock_arch tundra valley volcano",
    "forest": "bamboo_forest forest/broadleaf forest_path rainforest tree_farm",
    "botanical": """
        botanical_garden formal_garden greenhouse/indoor greenhouse/outdoor japanese_garden orchard roof_garden
        topiary_garden vegetable_garden vineyard zen_garden
    """,
    "field": "corn_field field/cultivated field/wild golf_course hayfield lawn pasture rice_paddy wheat_field",
    "snow": "crevasse glacier ice_floe ice_shelf iceberg mountain_snowy ski_slope snowfield",
    "road": "alley crosswalk desert_road driveway field_road forest_road highway raceway street",
}
_WITH = {
    "aeroplane": """
        airfield airplane_cabin airport_terminal army_base cockpit hangar/indoor hangar/outdoor landing_deck
        runway
    """,
    "bicycle": "crosswalk downtown plaza promenade residential_neighborhood street",
    "bird": "beach coast farm fishpond harbor lagoon marsh pet_shop pier pond swamp watering_hole",
    "boat": """
        boat_deck boathouse canal/natural canal/urban coast harbor islet lagoon lake/natural lock_chamber ocean
        pier raft river
    """,
    "bottle": """
        bar beer_garden beer_hall cafeteria coffee_shop delicatessen drugstore food_court galley
        general_store/indoor kitchen pantry pharmacy pub/indoor restaurant restaurant_kitchen supermarket
        wet_bar
    """,
    "bus": "bus_interior bus_station/indoor crosswalk downtown highway parking_lot street",
    "car": """
        auto_factory auto_showroom car_interior crosswalk desert_road downtown driveway garage/indoor
        garage/outdoor gas_station highway junkyard loading_dock motel parking_garage/indoor
        parking_garage/outdoor parking_lot raceway repair_shop residential_neighborhood street
    """,
    "cat": "pet_shop veterinarians_office",
    "chair": """
        auditorium banquet_hall bar beauty_salon beer_garden beer_hall cafeteria childs_room classroom
        coffee_shop computer_room conference_center conference_room diner/outdoor dining_hall dining_room
        dorm_room fastfood_restaurant food_court home_office home_theater hospital_room hotel_room
        ice_cream_parlor kindergarden_classroom lecture_room legislative_chamber library/indoor living_room
        lobby movie_theater/indoor office office_cubicles patio pizzeria porch pub/indoor reception restaurant
        restaurant_patio sushi_bar television_room throne_room waiting_room
    """,
    "cow": "barn bullring corral farm pasture stable",
    "diningtable": """
        banquet_hall beer_garden beer_hall cafeteria coffee_shop diner/outdoor dining_hall dining_room
        fastfood_restaurant food_court kitchen patio picnic_area pizzeria restaurant restaurant_patio sushi_bar
    """,
    "dog": "kennel/outdoor pet_shop veterinarians_office",
    "horse": "arena/rodeo barn corral farm pasture racecourse stable",
    "motorbike": "crosswalk downtown garage/indoor garage/outdoor junkyard parking_lot raceway repair_shop street",
    "person": """
        airport_terminal amphitheater amusement_park arena/hockey arena/performance arena/rodeo auditorium
        ball_pit ballroom banquet_hall bar baseball_field basketball_court/indoor bazaar/indoor bazaar/outdoor
        beach beauty_salon beer_garden beer_hall boxing_ring bullring bus_station/indoor cafeteria classroom
        conference_room crosswalk discotheque downtown fastfood_restaurant flea_market/indoor food_court
        football_field gymnasium/indoor ice_skating_rink/indoor ice_skating_rink/outdoor kindergarden_classroom
        lecture_room market/indoor market/outdoor martial_arts_gym movie_theater/indoor operating_room
        orchestra_pit playground plaza pub/indoor racecourse restaurant shopping_mall/indoor ski_resort
        ski_slope soccer_field stadium/baseball stadium/football stadium/soccer stage/indoor stage/outdoor
        street subway_station/platform supermarket swimming_pool/indoor swimming_pool/outdoor television_studio
        train_station/platform volleyball_court/outdoor water_park
    """,
    "pottedplant": """
        atrium/public balcony/exterior balcony/interior botanical_garden courtyard florist_shop/indoor
        formal_garden greenhouse/indoor greenhouse/outdoor living_room lobby office patio porch restaurant_patio
        roof_garden waiting_room yard
    """,
    "sheep": "barn corral farm pasture stable",
    "sofa": """
        artists_loft dorm_room home_office home_theater hotel_room living_room lobby playroom reception
        recreation_room television_room waiting_room
    """,
    "train": "railroad_track subway_station/platform train_interior train_station/platform viaduct",
    "tvmonitor": """
        airport_terminal amusement_arcade bar bedroom computer_room conference_room dorm_room home_office
        home_theater hotel_room living_room office office_cubicles recreation_room server_room television_room
        television_studio waiting_room
    """,
}

#: ten groups of Places365's categories that hold few objects and people. The groups are those of On Background Bias of
#: Post-Hoc Concept Embeddings (arXiv 2504.08602), which takes some of Places205's categories; which of
#: Places365's belong to each group is our own choice
PLACES_GROUPS: Mapping[str, tuple[str, ...]] = {group: tuple(names.split()) for group, names in _GROUPS.items()}
#: VOC's classes -> Places365's categories whose pictures show the object as a rule, judged by the categories' names
SCENES_WITH: Mapping[str, tuple[str, ...]] = {name: tuple(names.split()) for name, names in _WITH.items()}


def scene_groups(
    bank: BackgroundBank, groups: Mapping[str, Sequence[str]] = PLACES_GROUPS
) -> dict[str, BackgroundBank]:
    """One bank for each group of categories, such as the backgrounds on which concept vectors are tested.

    Categories are those of ``bank.classes``; "forest/broadleaf", "forest_broadleaf" and "Forest broadleaf" are one
    name. Categories that the bank lacks are passed over, and groups of which it has none are left out.

    Args:
        bank: with ``classes``, as ``BackgroundBank.from_folder`` and ``load_places365`` name them.
        groups: group -> categories.

    Raises:
        ValueError: a bank without names of its classes, or without any category of any group.
        TypeError: a streamed bank, whose images change.

    Example:
        >>> images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        >>> bank = BackgroundBank(images, torch.tensor([0, 1, 1]), classes=["glacier", "forest_broadleaf"])
        >>> {group: len(members) for group, members in scene_groups(bank).items()}
        {'forest': 2, 'snow': 1}
    """
    label_of = _labels_by_name(bank)
    members = {group: _labels_of(names, label_of) for group, names in groups.items()}
    if not any(members.values()):
        raise ValueError(f"groups: expected some of their categories in the bank, got {list(bank.classes or ())[:8]}")
    assert bank.labels is not None, "_labels_by_name has looked"
    labels = bank.labels.cpu()
    in_group = {
        group: torch.isin(labels, torch.tensor(categories)) for group, categories in members.items() if categories
    }
    return {group: bank.subset(in_this) for group, in_this in in_group.items() if bool(in_this.any())}


def forbid_scenes(
    bank: BackgroundBank, classes: Sequence[str], scenes: Mapping[str, Sequence[str]] = SCENES_WITH
) -> BackgroundBank:
    """The bank with scenes forbidden for classes whose object they usually show: boats and harbours.

    Needs no classifier, and knows no picture, only its category; `BackgroundBank.filter` with `forbidden_objects` looks
    at each. Lists that the bank has already stay in force.

    Args:
        bank: with ``classes``; it stays as it is, the images are shared.
        classes: names of the foregrounds' labels 0, 1, ..., in VOC's or COCO's spelling. A class that ``scenes`` lacks
            may get everything.
        scenes: class -> categories.

    Raises:
        ValueError: a bank without names of its classes, or nothing to forbid.
        TypeError: a streamed bank, whose images change; filter its folder.
    """
    label_of = _labels_by_name(bank)
    assert bank.labels is not None, "_labels_by_name has looked"
    labels, table = bank.labels.cpu(), {}
    for label, name in enumerate(classes):
        word = name.casefold().replace("_", " ").strip()
        categories = scenes.get(word) or scenes.get(OTHER_SPELLINGS.get(word, word), ())
        if shown_in := _labels_of(categories, label_of):
            table[label] = torch.isin(labels, torch.tensor(shown_in))
    if not table:
        raise ValueError(f"classes: no scene of the bank is one that shows any of {list(classes)[:8]}")
    pairs = ForbiddenPairs.of(table)
    restricted = _bank_of_same_images(bank)
    restricted.forbid(pairs if bank.forbidden_pairs is None else bank.forbidden_pairs.joined(pairs))
    return restricted


def _bank_of_same_images(bank: BackgroundBank) -> BackgroundBank:
    """Another bank of the same images."""
    shared = BackgroundBank(bank.images, bank.labels, mean=bank.mean, std=bank.std, classes=bank.classes)
    shared.filters = bank.filters
    return shared


def _labels_by_name(bank: BackgroundBank) -> dict[str, int]:
    """Label by plain name of a bank's categories."""
    if isinstance(bank, StreamedBackgroundBank):
        raise TypeError("bank: expected one in memory, got a streamed one, whose images change")
    if not isinstance(bank, BackgroundBank):
        raise TypeError(f"bank: expected a BackgroundBank, got {describe(bank)}")
    if bank.classes is None or bank.labels is None:
        raise ValueError("bank: expected one with labels and their names, got none; pass labels= and classes=")
    return {_plain_words(name): label for label, name in enumerate(bank.classes)}


def _labels_of(names: Sequence[str], label_of: Mapping[str, int]) -> list[int]:
    return [label_of[plain] for plain in map(_plain_words, names) if plain in label_of]


def _plain_words(name: str) -> str:
    for mark in "/-_":
        name = name.replace(mark, " ")
    return " ".join(name.casefold().split())
