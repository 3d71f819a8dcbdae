"""The words of captions: tables only. `captions` puts them together; `vocabulary` is read off these tables."""

from .world import Relation

NUMBERS = {2: ("two", "two", "2", "a pair of"), 3: ("three", "three", "3"), 4: ("four", "four", "4")}

# Between subject and object. The second table turns a caption around: "b {phrase} a" says that a is `relation` b.
FORWARD: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "floating above", "higher than"),
    "below": ("below", "under", "beneath", "underneath"),
    "riding": ("riding", "on", "on top of", "sitting on", "riding on"),
    "wearing": ("wearing", "with", "in", "that wears"),
}
INVERTED: dict[Relation, tuple[str, ...]] = {
    "left of": FORWARD["right of"],
    "right of": FORWARD["left of"],
    "above": FORWARD["below"],
    "below": FORWARD["above"],
    "riding": ("under", "carrying", "beneath"),
    "wearing": ("on", "worn by", "on the head of"),
}
# What stands between the keywords of terse captions.
KEYWORD: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of",),
    "right of": ("right of",),
    "above": ("above",),
    "below": ("below",),
    "riding": ("riding", "on"),
    "wearing": ("wearing", "with"),
}

# Follows the things without a comma.
PLACES: dict[str, tuple[str, ...]] = {
    "plain": (
        "on a {color} background", "on {color}", "against a {color} background", "in front of a {color} background",
        "with a {color} background",
    ),
    "grass": ("on the grass", "in a meadow", "in a green field", "on a meadow", "in the park", "outdoors on grass"),
    "sea": ("at sea", "on the ocean", "on the sea", "in the sea", "on the water", "in the ocean"),
    "night": ("at night", "under the stars", "under a starry sky", "in the night", "on a starry night"),
    "sunset": ("at sunset", "at dusk", "in the sunset", "in the evening sun", "at sundown"),
    "snow": ("in the snow", "in winter", "on the snow", "in a snowy landscape", "on a snowy day"),
    "space": ("in space", "in outer space", "among the stars in space", "in the galaxy", "floating in space"),
}  # fmt: skip
# Stands alone between commas.
BACKDROPS: dict[str, tuple[str, ...]] = {
    "plain": ("{color} background", "plain {color} background", "{color} backdrop"),
    "grass": ("grass", "meadow", "green grass background", "sunny meadow"),
    "sea": ("sea", "ocean", "ocean background", "waves"),
    "night": ("night", "night sky", "starry night", "stars at night"),
    "sunset": ("sunset", "sunset sky", "dusk", "sunset background"),
    "snow": ("snow", "winter", "snowy background", "snowy landscape"),
    "space": ("space", "outer space", "galaxy background", "cosmos"),
}
# Before everything: "{phrase} a cat".
STYLE_FIRST: dict[str, tuple[str, ...]] = {
    "plain": ("a picture of", "an image of", "an illustration of", "an emoji of", "a flat drawing of", "a photo of"),
    "pixel art": ("pixel art of", "a pixel art picture of", "8 bit pixel art of", "a pixelated image of"),
    "watercolor": ("a watercolor painting of", "a watercolor of", "watercolor painting of", "an aquarelle of"),
    "pencil sketch": ("a pencil sketch of", "a pencil drawing of", "a sketch of", "a colored pencil drawing of"),
    "neon": ("a neon sign of", "a glowing neon", "neon lights in the shape of", "a neon drawing of"),
}
# After everything, behind a comma or in brackets.
STYLE_LAST: dict[str, tuple[str, ...]] = {
    "plain": ("flat", "emoji", "flat illustration", "emoji style", "clip art"),
    "pixel art": ("pixel art", "pixel art style", "8 bit", "pixelated"),
    "watercolor": ("watercolor", "watercolor painting", "watercolor style", "aquarelle"),
    "pencil sketch": ("pencil sketch", "pencil drawing", "sketch", "colored pencil"),
    "neon": ("neon", "neon sign", "neon lights", "glowing neon", "neon style"),
}
STYLE_TAIL = ("in {style} style", "as {style}")  # after everything, without a comma; {style} is the style's own name
ADJECTIVES = ("cute", "little", "happy", "lovely", "funny", "nice")  # mean nothing: people write them
COLOR_SYNONYMS = {"purple": ("violet",), "gray": ("grey",), "pink": ("rosy",)}
