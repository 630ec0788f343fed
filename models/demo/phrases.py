"""What is said in the small world: how facts are told, asked and answered.

In a template {s} is the subject as the user names it and {t} as the assistant does ("my sister", "your sister"), {S} and {T} the
same with a capital, {n} without its first word; {0}, {1}, {2} are the parts of the value and {a0}, {A0} the article of part 0. "(a|b)" stands
for either. A template that starts with "~" is held out: training never shows it.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import words
from words import Sampler


@dataclass(frozen=True)
class Kind:
    """One kind of fact. Kinds of one name exclude each other for one subject."""

    name: str
    subject: str  # "me", "person", "named", "relation", "object", ...: see world.Speaker.subject
    value: Sampler | None  # None: names and words, which depend on the held-out split
    tell: Sequence[str]
    ask: Sequence[tuple[Sequence[str], str]]  # questions and their answer
    unknown: str  # completes "You did not tell me ..."
    large: bool = True  # the value is one of at least 10^4
    noun: str = ""  # the plain word for what is told
    said: str = "{0}"  # the value in words


@lru_cache(maxsize=None)
def expansions(template: str) -> tuple[str, ...]:
    """All choices of a template's alternatives, "(a|b)"."""
    cut = re.split(r"\(([^()]*\|[^()]*)\)", template)
    return tuple("".join(choice) for choice in itertools.product(*(t.split("|") if i % 2 else (t,) for i, t in enumerate(cut))))


_PET_ASK = (
    "(What|Which) (pet|animal) does {s} (keep|have|own)?", "What (kind|sort) of (pet|animal) does {s} (keep|have)?",
    "(Do you remember|Do you know|Tell me about) the (pet|animal) of {s}(?|.)", "What is {s}'s (pet|animal)?", "What's {s}'s pet?",
    "(Tell me|I want to know|Say) (which|what) (pet|animal) {s} (has|keeps).", "Does {s} have a pet?", "{S}'s pet?", "The pet of {s}?",
    "What is the pet of {s}?", "(What|Which) (animal|pet) (belongs to|is with|is kept by) {s}?", "Remind me of the pet of {s}.",
    "~What kind of pet does {s} own?", "~Which animal lives with {s}?", "~Do you recall what animal {s} keeps?",
)
_PET_NAME_ASK = (
    "What is {s}'s (pet|animal) called?", "What is the name of {s}'s (pet|animal)?", "What's the (pet|animal) of {s} called?",
    "(Tell me|Do you know|Do you remember|Say) the name of {s}'s pet(.|?)", "How is the (pet|animal) of {s} called?",
    "What is the name of the (pet|animal) of {s}?", "~Can you name the pet of {s}?", "~What does {s} call the pet?",
)

KINDS = (
    Kind(
        "name", "me", None,
        ("My name is {0}.", "(I am|I'm) {0}.", "You (can|may|could) call me {0}.", "(Please call|Call|Just call) me {0}.",
         "(People|Friends|My friends|Most people) call me {0}.", "I am (called|named|known as) {0}.", "(Hi|Hello|Hey), I'm {0}(!|.)",
         "(Hi|Hello|Hey|Good morning), (my name is|I am|this is) {0}(!|.)", "(The|My first) name is {0}.", "My name: {0}", "name = {0}",
         "I (go by|use) the name (of |){0}.", "{0} is my name.", "{0} is what (people|they) call me.", "This is {0} (speaking|here).",
         "My parents (called|named) me {0}.", "I was (named|christened) {0}.", "~Everybody calls me {0}.", "~Hey, {0} is my name.",
         "~They named me {0}."),
        ((("(What is|What's|Say|Tell me) my name(?|.)", "(Do you|Can you|Do you still) (remember|know|recall) my name?", "Who am I?",
           "(Can|Could) you tell me my name?", "(How|What) am I (called|named)?", "(What|How) do (people|my friends) call me?", "My name?",
           "(Do you|Can you) (remember|say|know) who I am?", "Under what name do you know me?", "Remind me of my name.",
           "(Which|What) name did I (give|tell) you?", "~What am I called by my friends?", "~What was my name again?",
           "~Please say what my name is."), "Your name is {0}."),),
        "your name", noun="name"),
    Kind(
        "called", "relation", None,
        ("{S} is (called|named) {0}.", "The name of {s} is {0}.", "{S}'s name is {0}.", "{S} is {0}.", "I have (a|one) {n} (called|named) {0}.",
         "I (must|have to|want to) tell you the name of {s}: {0}.", "We (call|named) {s} {0}.", "{0} is the name of {s}.",
         "I have a {n}, and the name is {0}.", "My {n}, {0}, says hello.", "{s}: {0}", "name of {s} = {0}", "{0} is {s}.",
         "(People|Friends) call {s} {0}.", "{S} (goes by|answers to) the name (of |){0}.", "~I call {s} {0}.", "~{S} has the name {0}.",
         "~You should call {s} {0}."),
        ((("What is {s} (called|named)?", "(What is|What's|Tell me|Say) the name of {s}(?|.)", "(What's|What is) {s}'s name?",
           "(Do you know|Do you remember|Do you recall) the name of {s}?", "(Do you know|Tell me|Say) (what|how) {s} is called(?|.)",
           "Who is {s}?", "{S}'s name?", "The name of {s}?", "(What|How) do (I|we|people) call {s}?", "Remind me of the name of {s}.",
           "(Which|What) name does {s} (have|go by)?", "~Can you name {s}?", "~How is {s} called?", "~What was the name of {s} again?"),
          "{T} is called {0}."),),
        "what {t} is called", noun="name"),
    Kind(
        "pet", "person", None,
        ("{S} (keeps|has|owns) {a0} {0} {1} (called|named) {2}.", "{S} (keeps|has|owns) {a0} {0} {1}, and its name is {2}.",
         "The (pet|animal) of {s} is {a0} {0} {1} (called|named) {2}.", "{S}'s pet is {a0} {0} {1} (called|named) {2}.",
         "At home {s} (keeps|has) {a0} {0} {1} whose name is {2}.", "{S} (got|bought|found|adopted) {a0} {0} {1} and (called|named) it {2}.",
         "{A0} {0} {1} (called|named) {2} (lives with|belongs to) {s}.", "{2} is the {0} {1} of {s}.", "{2}, {a0} {0} {1}, belongs to {s}.",
         "pet of {s}: {0} {1}, {2}", "{S} has a pet, {a0} {0} {1} with the name {2}.", "{S} and {2}, {a0} {0} {1}, live together.", "{S} (takes care of|feeds) {a0} {0} {1} (called|named) {2}.",
         "~{S} lives with {a0} {0} {1} by the name of {2}.", "~{S} looks after {a0} {0} {1} called {2}.", "~{S} is the owner of {a0} {0} {1} named {2}."),
        ((_PET_ASK, "{T} keeps {a0} {0} {1} called {2}."), (_PET_NAME_ASK, "{T}'s pet is called {2}.")),
        "what pet {t} keeps", noun="pet", said="{a0} {0} {1} called {2}"),
    Kind(
        "pet", "person", None,
        ("{S} (keeps|has|owns) {a0} {0} (called|named) {1}.", "{S} has {a0} {0}, and its name is {1}.", "{S}'s {0} is (called|named) {1}.",
         "The {0} of {s} is (called|named) {1}.", "{S} (got|bought|adopted) {a0} {0} and called it {1}.", "~{S} lives with {a0} {0} by the name of {1}."),
        ((_PET_ASK, "{T} keeps {a0} {0} called {1}."), (_PET_NAME_ASK, "{T}'s pet is called {1}.")),
        "what pet {t} keeps", large=False, noun="pet", said="{a0} {0} called {1}"),
    Kind(
        "pet", "me", None,
        ("I (keep|have|own) {a0} {0} {1} (called|named) {2}.", "My pet is {a0} {0} {1} (called|named) {2}.", "At home I have {a0} {0} {1} called {2}.",
         "I (got|bought|adopted) {a0} {0} {1} and (called|named) it {2}.", "~I live with {a0} {0} {1} by the name of {2}."),
        ((("(What|Which) (pet|animal) do I (keep|have|own)?", "What is my pet?", "Do you (remember|know) my pet?", "Do I have a pet?",
           "Tell me about my pet.", "~Which animal lives with me?"), "You keep {a0} {0} {1} called {2}."),
         (("(What is|What's) my pet called?", "What is the name of my pet?", "~How is my pet called?"), "Your pet is called {2}.")),
        "what pet you keep", noun="pet", said="{a0} {0} {1} called {2}"),
    Kind(
        "code", "object", words.code,
        ("The (code|PIN|number) (of|for) {s} is {0}.", "{S} (opens|unlocks) with (the code |the PIN |){0}.", "{0} is the (code|PIN) (of|for) {s}.",
         "To (open|unlock|get into) {s}, (type|enter|press|use) {0}.", "{S} has the (code|PIN) {0}.", "(Use|Enter|Type|Take) the code {0} for {s}.",
         "(Use|Enter|Type|Press) {0} to (open|unlock) {s}.", "{S} has a code, (and it is|namely) {0}.", "{s}: {0}", "{s}: code {0}",
         "code (of|for) {s} = {0}", "{S} is locked with {0}.", "With {0} you can (open|unlock) {s}.", "I (set|changed) the code of {s} to {0}.",
         "If you need to (open|unlock) {s}, the code is {0}.", "{0} (opens|unlocks) {s}.", "{S} needs the code {0}.",
         "We (chose|picked) {0} as the code of {s}.", "~You open {s} with {0}.", "~For {s} the code is {0}.",
         "~Anyone who wants to open {s} has to type {0}."),
        ((("(What is|What's|Tell me|Say) the (code|PIN) (of|for) {s}(?|.)", "(Which|What) code (opens|unlocks) {s}?",
           "How (do I|can I|do you|can we) (open|unlock) {s}?", "(Do you remember|Do you know|Do you recall) the code (of|for) {s}?",
           "(Which|What) code does {s} (have|need)?", "{S}'s code?", "The code (of|for) {s}?", "{s} code", "What do I (type|enter|press) to open {s}?",
           "I (want|need|have) to (open|unlock) {s}. What is the code?", "(Remind me of|Give me) the code (of|for) {s}.",
           "With (which|what) (code|number) (can I|do I) (open|unlock) {s}?", "(Please tell|Can you tell) me the code (of|for) {s}(.|?)",
           "~Which code do I need for {s}?", "~Can you give me the code of {s}?", "~What number will open {s}?"),
          "The code of {t} is {0}."),),
        "the code of {t}", noun="code"),
    Kind(
        "password", "object", words.password,
        ("The (password|passphrase|secret phrase) (of|for) {s} is {0}.", "{S} has the password {0}.", "The secret words (of|for) {s} are {0}.",
         "(Remember|Note|Keep) the password (of|for) {s}: {0}.", "{0} is the password (of|for) {s}.", "The password {0} (opens|belongs to|is for) {s}.",
         "(Use|Enter|Type|Take) the password {0} for {s}.", "To (open|enter|get into) {s}, (say|whisper|type) the password {0}.",
         "password (of|for) {s} = {0}", "{s}: password {0}", "We (chose|picked) the password {0} for {s}.", "I (set|changed) the password of {s} to {0}.",
         "If you need the password (of|for) {s}, it is {0}.", "{S} has a password, (and it is|namely) {0}.", "My password for {s} is {0}.",
         "{S} (opens|unlocks) with the password {0}.", "If you (say|whisper) {0}, {s} opens.", "{0} is what you (say|type) to open {s}.", "~Say {0} at {s}, that is the password.", "~As the password of {s} we chose {0}.",
         "~{S} only opens with the password {0}."),
        ((("(What is|What's|Tell me|Say) the password (of|for) {s}(?|.)", "(Which|What) password does {s} (have|need)?",
           "(Do you remember|Do you know|Do you recall) the password (of|for) {s}?", "(Which|What) password (opens|belongs to|is for) {s}?",
           "The password (of|for) {s}?", "{s} password", "(Remind me of|Give me) the password (of|for) {s}.", "What are the secret words (of|for) {s}?",
           "(Which|What) password did I (choose|set|give you) for {s}?", "I need the password (of|for) {s}.",
           "~I forgot the password of {s}, what was it?", "~Which password do I need for {s}?", "~What is the right password for {s}?"),
          "The password of {t} is {0}."),),
        "the password of {t}", noun="password"),
    Kind(
        "phone", "person", words.phone,
        ("The (phone number|telephone number|number|phone) of {s} is {0}.", "{S} has the phone number {0}.", "{S}'s (phone |telephone |)number is {0}.",
         "You can (call|phone|ring|reach) {s} (at|on|under) {0}.", "(Call|Phone|Ring|Dial) {0} (for|to reach|to talk to) {s}.", "{0} is {s}'s phone number.",
         "{0} is the (phone |)number of {s}.", "{s}: phone {0}", "phone of {s} = {0}", "If you need {s}, (call|dial|ring) {0}.",
         "{S} (got|has) a new phone number, (namely|and it is) {0}.", "{S} answers the phone at {0}.", "When you call {s}, the number is {0}.",
         "~To reach {s}, dial {0}.", "~{S} can be called at {0}.", "~For {s}, the phone number is {0}."),
        ((("(What is|What's|Tell me|Say) the (phone |telephone |)number of {s}(?|.)", "(What's|What is) {s}'s (phone |telephone |)number?",
           "How (can|do) I (call|reach|phone|ring) {s}?", "(Do you remember|Do you know|Do you recall) the (phone |)number of {s}?", "{S}'s phone number?",
           "The (phone |)number of {s}?", "(Which|What) number (do I|should I|can I) (call|ring|dial) for {s}?", "I (want|need|have) to call {s}. What is the number?",
           "(Remind me of|Give me) the phone number of {s}.", "(Which|What) phone number does {s} have?", "Where can I (call|reach) {s}?",
           "~Which number do I dial to reach {s}?", "~Can you give me the number of {s}?", "~What was the phone number of {s}?"),
          "{T}'s phone number is {0}."),),
        "the phone number of {t}", noun="phone number"),
    Kind(
        "place", "small", words.place,
        ("{S} is (|now )in the {0}.", "I (put|left|hid|placed|keep|stored|have put|dropped) {s} in the {0}.", "You (will|can) find {s} in the {0}.",
         "We (keep|put|left|store) {s} in the {0}.", "{S} (stands|stays|was left|has been put|can be found|belongs) in the {0}.", "In the {0} (is|there is|I put|you find) {s}.",
         "{s}: in the {0}", "If you look for {s}, it is in the {0}.", "The {0} (holds|contains|hides) {s}.", "The place of {s} is in the {0}.",
         "Somebody put {s} in the {0}.", "~I have hidden {s} in the {0}.", "~{S} lies in the {0}.", "~I moved {s} and it is in the {0}."),
        ((("(Where is|Where's) {s}?", "Where (did I|did we) (put|leave|hide|place) {s}?", "Where (can|do|will) (I|we) (find|get) {s}?",
           "(Do you know|Tell me|Do you remember|Say) where {s} is(?|.)", "(Do you know|Do you remember) where I (put|left) {s}?", "I (need|want|can not find) {s}. Where is it?",
           "In which place did I put {s}?", "(What|Which) place is {s} in?", "Where do (I|we) keep {s}?", "{S}, where is it?", "Remind me where {s} is.",
           "~Where should I look for {s}?", "~In which place is {s}?", "~I am looking for {s}, where is it?"), "{T} is in the {0}."),),
        "where {t} is", noun="place", said="the {0}"),
    Kind(
        "possession", "possession", None,
        ("{S} is {0}.", "{S} is (called|named) {0}.", "{0} is {s}.", "{s}: {0}", "{s} = {0}", "I (think|know|heard) {s} is {0}.",
         "~You should know that {s} is {0}."),
        ((("(What is|What's|Tell me|Say) {s}(?|.)", "(Do you remember|Do you know) {s}?", "{S}?", "Which one is {s}?", "Remind me what {s} is.",
           "~Can you tell me what {s} is?"), "{T} is {0}."),),
        "what {t} is", large=False),
    Kind(
        "who", "named", words.one_of(words.PEOPLE),
        ("{S} is my {0}.", "My {0} is (called |named |){s}.", "{S} has been my {0} for years.", "I have {a0} {0} (called|named) {s}.", "~Meet {s}, my {0}."),
        ((("Who is {s}?", "Who's {s}?", "(Do you|Can you) (know|remember) who {s} is?", "How do I know {s}?", "~Tell me who {s} is."),
          "{T} is your {0}."),),
        "who {t} is", large=False),
    Kind(
        "colour", "owned", words.one_of(words.COLOURS),
        ("{S} is {0}.", "The colour of {s} is {0}.", "I painted {s} {0}.", "{S} has the colour {0}.", "I have {a0} {0} {n}.", "~I bought {s} in {0}."),
        ((("(What|Which) colour (is|has|does) {s}?", "What is the colour of {s}?", "Do you (know|remember) the colour of {s}?", "~In what colour is {s}?"),
          "{T} is {0}."),),
        "what colour {t} is", large=False, noun="colour"),
    Kind(
        "like", "me", words.one_of(words.FOODS + words.ANIMALS),
        ("I (like|love|enjoy|adore) {0}.", "I am very fond of {0}.", "I really (like|love) {0}.", "~What I like is {0}."),
        ((("What do I (like|love|enjoy)?", "What am I fond of?", "Do you (know|remember) what I like?", "~What is it that I like?"), "You like {0}."),),
        "what you like", large=False),
    Kind(
        "town", "me", words.one_of(words.TOWNS),
        ("I live in {0}.", "My home is in {0}.", "I (am|come) from {0}.", "I'm from {0}.", "I (moved|have moved) to {0}.", "My (house|flat) is in {0}.",
         "I was born and live in {0}.", "~My home town is {0}."),
        ((("Where do I (live|come from)?", "(Which|What) (town|city|place) do I live in?", "Where am I from?", "Where is my (home|house|flat)?",
           "Do you (know|remember) where I live?", "Tell me where I live.", "~In which town is my home?"), "You live in {0}."),),
        "where you live", large=False, noun="town"),
    Kind(
        "job", "me", words.one_of(words.JOBS),
        ("I work as {a0} {0}.", "(I am|I'm) {a0} {0}.", "My (job|work) is to be {a0} {0}.", "I have a job as {a0} {0}.", "My profession: {0}",
         "I earn my money as {a0} {0}.", "I became {a0} {0}.", "~For a living I am {a0} {0}."),
        ((("(What is|What's) my (job|work|profession)?", "What do I do (for a living|for work)?", "(Which|What) job do I have?",
           "Do you (know|remember) my job?", "~What do I work as?"), "You work as {a0} {0}."),),
        "what your job is", large=False, noun="job"),
    Kind(
        "age", "me", words.age,
        ("(I am|I'm) {0} years old.", "My age is {0}.", "I (turned|became|will be) {0} this year.", "I am {0}.", "~I have just become {0} years old."),
        ((("How old am I?", "(What is|What's) my age?", "Do you (know|remember) how old I am?", "Tell me my age.", "~How many years old am I?"),
          "You are {0} years old."),),
        "how old you are", large=False, noun="age"),
    Kind(
        "years", "person", words.age,
        ("{S} is {0} years old.", "The age of {s} is {0}.", "{S} (turned|became|will be) {0} this year.", "~{S} has lived for {0} years."),
        ((("How old is {s}?", "(What is|What's) the age of {s}?", "Do you (know|remember) how old {s} is?", "~How many years old is {s}?"),
          "{T} is {0} years old."),),
        "how old {t} is", large=False, noun="age"),
    Kind(
        "home", "person", words.one_of(words.TOWNS),
        ("{S} lives in {0}.", "{S} (comes|is) from {0}.", "{S} (has moved|moved) to {0}.", "The home of {s} is in {0}.", "{S} lives (far away|not far away), in {0}.",
         "{S} has a (flat|home) in {0}.", "~{S} has a house in {0}."),
        ((("Where does {s} (live|come from)?", "(Which|What) (town|city|place) does {s} live in?", "Where is the home of {s}?", "Where is {s} from?",
           "Do you (know|remember) where {s} lives?", "Tell me where {s} lives.", "~In which town does {s} live?"), "{T} lives in {0}."),),
        "where {t} lives", large=False, noun="town"),
    Kind(
        "work", "person", words.one_of(words.JOBS),
        ("{S} works as {a0} {0}.", "{S} is {a0} {0}.", "{S} has a job as {a0} {0}.", "The job of {s} is {0}.", "{S} became {a0} {0}.",
         "~For a living {s} is {a0} {0}."),
        ((("(What is|What's) the (job|work|profession) of {s}?", "What does {s} do (for a living|for work)?", "(What's|What is) {s}'s job?",
           "What does {s} work as?", "Do you (know|remember) the job of {s}?", "~Which job does {s} have?"), "{T} works as {a0} {0}."),),
        "what the job of {t} is", large=False, noun="job"),
    Kind(
        "food", "person", words.one_of(words.FOODS),
        ("{S} likes (to eat |){0}.", "{S} loves (to eat |){0}.", "The favourite food of {s} is {0}.", "{S} is fond of {0}.", "{S}'s favourite dish is {0}.",
         "~{S} would eat {0} every day."),
        ((("What does {s} (like|love)(| to eat)?", "What is the favourite (food|dish) of {s}?", "(What|Which) food does {s} (like|love)?",
           "Do you (know|remember) what {s} likes to eat?", "~What should I cook for {s}?"), "{T} likes to eat {0}."),),
        "what {t} likes to eat", large=False, noun="food"),
    Kind(
        "birthday", "person", words.birthday,
        ("The birthday of {s} is (on |){0}.", "{S} was born on {0}.", "{S}'s birthday is (on |){0}.", "{S} has a birthday on {0}.",
         "~We celebrate the birthday of {s} on {0}."),
        ((("When is the birthday of {s}?", "When was {s} born?", "(What|Which) day is {s}'s birthday?", "When is {s}'s birthday?",
           "Do you (know|remember) the birthday of {s}?", "~On which day was {s} born?"), "{T}'s birthday is on {0}."),),
        "when the birthday of {t} is", large=False, noun="birthday"),
    Kind(
        "meeting", "person", words.meeting,
        ("I (meet|will meet|see|will see|visit|will visit) {s} on {0} at {1}.", "I have (an appointment|a meeting|a date) with {s} on {0} at {1}.",
         "On {0} at {1} I (meet|see|visit) {s}.", "{S} (comes|will come) on {0} at {1}.", "~On {0} at {1} I have to meet {s}."),
        ((("When (do|will) I (meet|see|visit) {s}?", "When is my (appointment|meeting|date) with {s}?", "When does {s} come?",
           "Do you (know|remember) when I meet {s}?", "~At what time do I meet {s}?"), "You meet {t} on {0} at {1}."),),
        "when you meet {t}", large=False, noun="meeting", said="{0} at {1}"),
    Kind(
        "favourite", "favourite", None,
        ("My favourite {s} is {0}.", "The {s} I (like|love) (best|most) is {0}.", "For me {0} is the best {s}.", "My best loved {s} is {0}.",
         "{0} is my favourite {s}.", "favourite {s}: {0}", "As for {s}, I like {0} best.", "I like the {s} {0} most.",
         "~Of all of them, the {s} I like most is {0}.", "~No {s} is better than {0}."),
        ((("(What is|What's|Tell me|Say) my favourite {s}(?|.)", "(Which|What) {s} do I (like|love) (best|most)?",
           "(Do you remember|Do you know) my favourite {s}?", "My favourite {s}?", "(Which|What) is the {s} I like best?",
           "~Which {s} is my favourite?", "~What {s} did I call my favourite?"), "Your favourite {s} is {0}."),),
        "your favourite {s}", large=False),
    Kind(
        "word", "word", None,
        ("The {s} is {0}.", "(Remember|Note): the {s} is {0}.", "My {s} is {0}.", "They say that {0} is the {s}.", "{s}: {0}", "{s} = {0}",
         "(Remember|Note|Keep in mind) that the {s} is {0}.", "Our {s} is {0}.", "I chose {0} as the {s}.", "The {s} is called {0}.",
         "~Please do not forget that the {s} is {0}."),
        ((("(What is|What's|Tell me|Say) (the|my|our) {s}(?|.)", "(Do you remember|Do you know) (the|my) {s}?", "The {s}?", "{s}?",
           "(Which|What) {s} did I tell you?", "Remind me of the {s}.", "~Can you tell me what the {s} is?"), "The {s} is {0}."),),
        "what the {s} is", large=False),
)

UPDATES = ("Actually, {}", "Correction: {}", "(I was|That was) wrong. {}", "That has changed. {}", "I made a mistake. {}",
           "(Sorry|Oh), I meant (this|something else): {}", "No, wait. {}", "(Now|From now on) it is different: {}", "Update: {}", "No, {}",
           "Things have changed: {}", "{} I got it wrong before.", "{} Forget what I said before.", "Sorry, {}", "{} That is new.",
           "~Let me correct that. {}", "~Not quite. {}")
TELL_WRAPS = ("{}",) * 16 + (
    "(Please remember|Please note|Remember|Note) this(.|:) {}", "{} (Please remember|Please note|Remember|Note) (that|this|it).", "By the way, {}", "Did you know? {}",
    "You should know (this|something): {}", "{} Keep (it|that) in mind.", "Remember: {}", "(Well|And|Also|Then|Next|Oh), {}", "{} (Okay|All right)?",
    "(Listen|Look|Attention): {}", "{} (That is important|It is true|That is all|Good to know).", "(I want to tell you something|Another thing|A fact). {}",
    "(Hello|Hi|Hey)! {}", "~Here is something to remember. {}", "~{} Do not forget it.", "~In addition, {}", "~Keep this for me: {}")
ASK_WRAPS = ("{}",) * 16 + (
    "Please tell me: {}", "By the way, {}", "(I have a question|A question|Question). {}", "(Now a question|Quick question): {}", "Do you remember? {}",
    "{} (Please answer|Please|Thanks).", "(Tell me|Please tell me|Hey|Well|And|Okay|Now), {}", "{} (I have forgotten|I can not remember|I do not know).",
    "(Let's see|I wonder|Think). {}", "(Hello|Hi|Hey)! {}", "~Let me see what you remember. {}", "~One more thing: {}", "~So, {}",
    "~{} I forgot it.", "~Help me remember. {}")
CHECKS = ("(Is it true|Is it right|Am I right|Is it correct) that {}", "Did I (say|tell you) that {}")
ABOUT = ("What do you (know|remember) about {s}?", "What did I (tell you|say) about {s}?", "Tell me (something |)about {s}.")

NOTED = ("Noted.", "Got it.", "Okay, I will remember that.", "Thank you, I will remember that.", "I will keep that in mind.")
NOTED_MANY = ("Noted, all of it.", "Thank you, I will remember all of that.", "Got it, I will remember each of them.")
GREETED = ("Nice to meet you, {0}!", "Hello, {0}!", "Pleased to meet you, {0}!")
RESTATED = ("Noted: {}", "Got it: {}", "Okay: {}")
UNKNOWN = ("You did not tell me {}.", "You did not tell me {}.", "You did not tell me {} yet.",
           "You did not tell me {}. Tell me, and I will remember it.")
READ = ("Thank you, I have read it.", "I have read it.", "Thanks, I read all of it.")
CORRECTED = ("Thank you, I have corrected it.", "Okay, I will remember the new one.", "Got it, I have updated that.")

FAVOURITES = {
    "colour": words.COLOURS, "animal": words.ANIMALS, "food": words.FOODS, "fruit": words.FRUITS, "drink": words.DRINKS,
    "sport": words.SPORTS, "instrument": words.INSTRUMENTS, "flower": words.FLOWERS, "day": words.DAYS, "month": words.MONTHS,
    "season": words.SEASONS, "town": words.TOWNS,
}
