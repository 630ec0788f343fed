"""The words of the small world: names, things, numbers, and the samplers that draw values from them.

A word is held out when `held_out(word)`: training never shows such a name, evaluation draws from them alone.
"""

import random
import string
import zlib
from collections.abc import Callable

REAL_NAMES = """Ada Agnes Aiko Alan Alba Alice Amir Amina Anders Anna Anton Aria Arthur Asha Astrid Ben Bianca Boris Bram
Bruno Camille Carla Carlos Cecil Chen Chloe Clara Colin Cora Daan Dana Daniel Daria David Dina Diego Dora Edda Edgar Elena Eli
Elif Ella Elsa Emil Emma Erik Esther Eva Ezra Fatima Felix Fiona Flora Frank Freya Frida Gabriel George Gerda Gita Grace Greta
Gus Hana Hannah Harald Harriet Hassan Hector Helen Henry Hilda Hugo Ibrahim Ida Igor Ilan Ilse Imani Ines Ingrid Irene Iris Isaac
Ivan Jack Jakob James Jana Jane Javier Jens Joan Johan John Jonas Jorge Jude Julia Kai Kamal Karen Karl Katya Keiko Kim Kofi Lars
Laura Leah Leila Leo Liam Lena Lina Linus Lisa Livia Lotte Louis Lucas Lucy Luna Mabel Magnus Maja Malik Mara Marco Maria Marta
Martin Mary Mateo Max Maya Mei Mia Mila Milo Mina Mira Moritz Nadia Naomi Nell Nico Nils Nina Noah Nora Olga Oliver Omar Oscar Otto
Owen Pablo Paul Pavel Pedro Peter Petra Philip Pia Priya Quinn Rafael Rania Ravi Rita Robin Rosa Ruben Ruth Sam Samir Sana Sara
Sasha Selma Signe Silas Simon Sofia Sol Stefan Susan Sven Tara Teo Thea Theo Thomas Tilda Tim Tobias Tom Tova Uma Una Ursula Vera
Victor Viola Wanda Wei Willa Willem Xenia Yara Yasmin Yuki Yusuf Zara Zelda Zoe""".split()
PET_NAMES = """Pim Bubbles Biscuit Pepper Muffin Rusty Shadow Misty Ziggy Pickle Waffles Noodle Mocha Cosmo Pixel Turbo Nacho
Maple Olive Poppy Daisy Ginger Cookie Button Sparky Smokey Tango Velvet Whisker Pebble Pogo Fudge Domino Echo Marble Nutmeg""".split()
COLOURS = """red blue green yellow white black brown grey silver golden purple orange pink violet amber scarlet turquoise ivory
copper crimson olive emerald striped spotted""".split()
ANIMALS = """heron otter fox cat dog rabbit parrot turtle pony goat hamster ferret owl raven goose duck lizard gecko hedgehog
donkey sheep canary pigeon frog newt mouse squirrel badger crab snail swan falcon spaniel poodle terrier llama alpaca toad finch
penguin hare mole peacock magpie starling beagle kitten puppy calf lamb""".split()
TOWNS = """Lund Oslo Bergen Paris Rome Madrid Lisbon Vienna Prague Berlin Hamburg Dresden Zurich Geneva Milan Turin Naples Athens
Cairo Tunis Dakar Accra Nairobi Lagos Delhi Mumbai Tokyo Kyoto Osaka Seoul Hanoi Manila Sydney Perth Lima Quito Bogota Havana
Boston Chicago Denver Austin Toronto Dublin Cork London York Bristol Leeds Glasgow Ghent Antwerp Utrecht Leiden Malmo Aarhus Turku
Tampere Riga Vilnius Krakow Gdansk Brno Graz Split Zagreb Porto Seville Bilbao Lyon Nantes Lille Reykjavik Tbilisi""".split()
JOBS = """baker teacher nurse plumber carpenter painter pilot farmer gardener librarian cook doctor dentist lawyer engineer
electrician tailor barber sailor fisherman potter weaver printer clerk architect astronomer beekeeper bookbinder chemist
designer editor firefighter geologist juggler locksmith mechanic musician optician photographer postman programmer
shepherd surgeon translator vet welder writer actor""".split()
FOODS = """pizza rice soup bread cheese pancakes dumplings noodles curry salad lasagna tacos sushi porridge waffles stew pie
mushrooms potatoes lentils omelettes falafel risotto goulash ravioli chili couscous paella""".split()
FRUITS = "apple pear plum cherry mango banana grape peach lemon lime fig melon papaya apricot kiwi orange quince date".split()
DRINKS = "tea coffee cocoa milk lemonade water juice cider kefir lassi cola soda".split()
SPORTS = "tennis chess rowing football hockey judo fencing sailing skiing climbing archery badminton cycling golf running".split()
INSTRUMENTS = "piano violin cello flute drum guitar harp trumpet oboe banjo accordion clarinet organ ukulele tuba".split()
FLOWERS = "rose tulip daisy lily iris orchid poppy violet sunflower peony lilac dahlia crocus jasmine marigold".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SEASONS = "spring summer autumn winter".split()
OBJECTS = """door box gate safe locker bike garage shed cabin suitcase drawer cupboard cellar boat trunk chest vault office
mailbox barn tent cabinet scooter warehouse""".split()
SMALL_OBJECTS = """key umbrella ticket map lamp hammer book letter camera watch ring coin cup scarf hat torch passport wallet
notebook candle compass knife spoon ball drum flute vase basket bottle mirror""".split()
CONTAINERS = """drawer box basket bag cupboard chest jar tin trunk suitcase cabinet bucket crate pouch case bowl barrel
shelf pocket sack locker bin folder tray""".split()
ROOMS = """kitchen garden attic cellar garage hall bedroom bathroom office library shed barn workshop pantry studio stable
greenhouse laundry tower chapel""".split()
ADJECTIVES = """quiet brave gentle rapid lucky tiny proud clever sleepy frozen hidden bright ancient misty hollow noble rusty
velvet wooden copper crystal distant eager fancy gloomy happy icy jolly kind lazy mellow narrow odd patient rare salty tender
urban vivid wild young zesty silent golden stormy dusty curly humble crooked sunny windy mossy plain royal simple steady sweet
tall thin warm wise bitter broad calm cheerful cold crisp damp dark deep dry early fair fresh grand green heavy hungry loud
light long loyal merry mighty modest neat nimble pale polite quick rainy round sharp shiny short shy slow small smooth soft
solid spicy square stiff strong sturdy subtle swift thirsty tidy tough""".split()
NOUNS = """river mountain lantern otter castle forest window bridge garden pebble candle harbor island meadow orchard planet
rocket saddle tunnel valley whistle anchor barrel carpet dragon engine feather glacier hammer insect jacket kettle ladder magnet
needle ocean pillow quilt ribbon sailor temple umbrella violin wagon yogurt zebra acorn beacon cactus desert eagle falcon
goblin helmet iceberg jungle kitten lemon marble nutmeg onion parrot quarry raven sparrow thunder unicorn velvet walnut
arrow blanket button canyon cloud comet coral cottage cricket crown daisy dolphin drum ember fiddle flame flute fountain
fox galaxy gate goose grape harvest hazel heron hill honey horse ivory jewel lake leaf lion maple mirror moon moss nest oak
owl paddle palace panther path pearl pepper pine pond prairie puzzle rabbit rain reef rose sail shadow shell shore silver
snow spring star stone storm swan thistle tiger tower trumpet tulip turtle village wave whale willow wind wolf""".split()
RELATIONS = """sister brother mother father aunt uncle cousin neighbour boss teacher dog cat horse doctor roommate daughter son
grandmother grandfather colleague dentist nephew niece parrot landlord coach""".split()
GLUE = """is of with the by for we say need you when must only that as has under and to at it was are be will can this there
which one please from on in about so take know tell keep use find has got my our their here always never again very well then what
who how where does did do was chosen called given set now just him her them us all any every let make remember right""".split()
PEOPLE = [w for w in RELATIONS if w not in ("dog", "cat", "horse", "parrot")]
OWNED = "car house coat bicycle kitchen sofa jacket phone boat hat bag cup shirt pen chair table".split()
THINGS = """book film movie song show series game city tree bird river mountain shop cafe band dish poem street park museum language subject
ship train hobby planet story dance cake shirt word room teacher author painter team holiday smell sound""".split()

ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sl st t th tr v w y z".split()
VOWELS = "a e i o u ai ea ee ie o a e i".split()
CODAS = ["", "", "", "l", "n", "r", "s", "m", "k", "nd", "x", "th", "ra", "la", "no", "ta"]

Value = tuple[str, ...]
Sampler = Callable[[random.Random], Value]


def held_out(word: str) -> bool:
    """True for an eighth of all words, for ever the same ones."""
    return zlib.crc32(word.encode()) % 8 == 0


def invented(rng: random.Random) -> str:
    """A pronounceable word of two or three syllables, one of more than 10^7; now and then one that nobody can pronounce."""
    if rng.random() < 0.1:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 8)))
    word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2))))
    return word + rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)


class Lexicon:
    """Draws names and words from one side of the held-out split."""

    def __init__(self, evaluation: bool, rng: random.Random, size: int = 20000) -> None:
        keep = [w for w in (invented(rng) for _ in range(size * (8 if evaluation else 1))) if held_out(w) == evaluation]
        self.invented = keep
        self.real = 0.05 if evaluation else 0.35
        self.names = [w for w in REAL_NAMES if held_out(w) == evaluation]
        self.pet_names = [w for w in PET_NAMES if held_out(w) == evaluation]

    def name(self, rng: random.Random) -> str:
        """In evaluation nearly always an invented one: a draw from 20 000."""
        return rng.choice(self.names) if rng.random() < self.real else rng.choice(self.invented).capitalize()

    def pet_name(self, rng: random.Random) -> str:
        return rng.choice(self.pet_names) if rng.random() < self.real else self.name(rng)

    def title(self, rng: random.Random) -> str:
        """What anything may be called: a word or two, small or capital, or a number."""
        words = [self.word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3)))]
        form = rng.randrange(8)
        if form == 0:
            return digits(rng, rng.randint(1, 6))
        if form == 1:
            return f"{words[0]} {digits(rng, rng.randint(1, 3))}"
        if form == 2:
            return "The " + " ".join(w.capitalize() for w in words[:2])
        return " ".join(w.capitalize() for w in words) if form < 5 else " ".join(words)

    def word(self, rng: random.Random) -> str:
        return rng.choice(rng.choice((NOUNS, ADJECTIVES, self.invented)))


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


def one_of(words: list[str]) -> Sampler:
    return lambda rng: (rng.choice(words),)


def code(rng: random.Random) -> Value:
    return (digits(rng, rng.choice((4, 4, 4, 5, 6))),)


def phone(rng: random.Random) -> Value:
    return (f"{digits(rng, 3)} {digits(rng, 4)}",)


def password(rng: random.Random) -> Value:
    return (f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}",)


def place(rng: random.Random) -> Value:
    return (f"{rng.choice(COLOURS)} {rng.choice(CONTAINERS)} in the {rng.choice(ROOMS)}",)


def birthday(rng: random.Random) -> Value:
    return (f"{rng.randint(1, 28)} {rng.choice(MONTHS)}",)


def age(rng: random.Random) -> Value:
    return (str(rng.randint(5, 99)),)


def meeting(rng: random.Random) -> Value:
    return (rng.choice(DAYS), f"{rng.randint(7, 22)}:{rng.choice((0, 15, 30, 45, rng.randint(0, 59))):02d}")
