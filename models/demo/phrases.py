"""What is said in the small world: how facts are told, asked and answered, and the small talk around them.

In a template {s} is the subject as the user names it and {t} as the assistant does ("my sister", "your sister"), {S} and {T} the
same with a capital; {0}, {1}, {2} are the parts of the value and {a0} is the article of part 0. A template that starts with "~" is
held out: training never shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import words
from words import Sampler


@dataclass(frozen=True)
class Kind:
    """One kind of fact."""

    name: str
    subject: str  # "me", "person", "relation", "object", "small", "favourite", "word": see world.Speaker.subject
    value: Sampler | None  # None: names and words, which depend on the held-out split
    tell: Sequence[str]
    ask: Sequence[tuple[Sequence[str], str]]  # questions and their answer
    unknown: str  # completes "You did not tell me ..."
    large: bool = True  # the value is one of at least 10^4


KINDS = (
    Kind(
        "name", "me", None,
        ("My name is {0}.", "I am {0}.", "I'm {0}.", "You can call me {0}.", "Call me {0}.", "People call me {0}.", "I am called {0}.",
         "Hi, I'm {0}!", "Hello, my name is {0}.", "~Everybody calls me {0}.", "~Hey, {0} is my name."),
        ((("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Can you tell me my name?", "Tell me my name.",
           "How am I called?", "Do you know my name?", "what is my name", "~What am I called?", "~Do you still know my name?"),
          "Your name is {0}."),),
        "your name"),
    Kind(
        "called", "relation", None,
        ("{S} is called {0}.", "The name of {s} is {0}.", "{S}'s name is {0}.", "I have to tell you the name of {s}: {0}.",
         "~I call {s} {0}.", "~{S} has the name {0}."),
        ((("What is {s} called?", "What is the name of {s}?", "What's {s}'s name?", "What is {s}'s name?", "Do you know the name of {s}?",
           "Tell me the name of {s}.", "~Can you name {s}?", "~How is {s} called?"), "{T} is called {0}."),),
        "what {t} is called"),
    Kind(
        "pet", "person", None,
        ("{S} keeps {a0} {0} {1} called {2}.", "{S} has {a0} {0} {1} called {2}.", "{S} has {a0} {0} {1} named {2}.",
         "{S} owns {a0} {0} {1}, and its name is {2}.", "The pet of {s} is {a0} {0} {1} called {2}.",
         "At home {s} keeps {a0} {0} {1} whose name is {2}.", "~{S} lives with {a0} {0} {1} by the name of {2}.",
         "~{S} looks after {a0} {0} {1} called {2}."),
        ((("What pet does {s} keep?", "What animal does {s} have?", "Which pet does {s} have?", "Do you remember the pet of {s}?",
           "What is {s}'s pet?", "What pet does {s} have?", "Tell me about the pet of {s}.", "~What kind of pet does {s} own?",
           "~What animal lives with {s}?"), "{T} keeps {a0} {0} {1} called {2}."),
         (("What is {s}'s pet called?", "What is the name of {s}'s pet?", "What's the pet of {s} called?",
           "~Can you name the pet of {s}?"), "{T}'s pet is called {2}.")),
        "what pet {t} keeps"),
    Kind(
        "code", "object", words.code,
        ("The code of {s} is {0}.", "The code for {s} is {0}.", "{S} opens with the code {0}.", "{0} is the code of {s}.",
         "To open {s}, type {0}.", "{S} has the code {0}.", "Use the code {0} for {s}.", "The PIN of {s} is {0}.",
         "~You open {s} with {0}.", "~For {s} the code is {0}."),
        ((("What is the code of {s}?", "What's the code of {s}?", "What is the code for {s}?", "Which code opens {s}?",
           "How do I open {s}?", "Do you remember the code of {s}?", "Tell me the code of {s}.", "what is the code of {s}",
           "~Which code do I need for {s}?", "~Can you give me the code of {s}?"), "The code of {t} is {0}."),),
        "the code of {t}"),
    Kind(
        "password", "object", words.password,
        ("The password of {s} is {0}.", "The password for {s} is {0}.", "{S} has the password {0}.", "The secret words for {s} are {0}.",
         "Remember the password of {s}: {0}.", "~Say {0} to open {s}, it is the password.", "~As the password of {s} we chose {0}."),
        ((("What is the password of {s}?", "What's the password for {s}?", "Which password does {s} have?", "Tell me the password of {s}.",
           "Do you know the password of {s}?", "~I forgot the password of {s}, what was it?", "~Which password do I need for {s}?"),
          "The password of {t} is {0}."),),
        "the password of {t}"),
    Kind(
        "phone", "person", words.phone,
        ("The phone number of {s} is {0}.", "{S} has the phone number {0}.", "{S}'s number is {0}.", "You can call {s} at {0}.",
         "~To reach {s}, dial {0}.", "~{S} can be called at {0}."),
        ((("What is the phone number of {s}?", "What's {s}'s phone number?", "What is {s}'s number?", "How can I call {s}?",
           "Tell me the phone number of {s}.", "~Which number do I dial to reach {s}?", "~Can you give me the number of {s}?"),
          "{T}'s phone number is {0}."),),
        "the phone number of {t}"),
    Kind(
        "place", "small", words.place,
        ("{S} is in the {0}.", "I put {s} in the {0}.", "You will find {s} in the {0}.", "I left {s} in the {0}.",
         "We keep {s} in the {0}.", "~I have hidden {s} in the {0}.", "~{S} lies in the {0}."),
        ((("Where is {s}?", "Where's {s}?", "Where did I put {s}?", "Where can I find {s}?", "Do you know where {s} is?",
           "Tell me where {s} is.", "~Where do I find {s}?", "~In which place is {s}?"), "{T} is in the {0}."),),
        "where {t} is"),
    Kind(
        "town", "me", words.one_of(words.TOWNS),
        ("I live in {0}.", "My home is in {0}.", "I am from {0}.", "I come from {0}.", "~My home town is {0}."),
        ((("Where do I live?", "Which town do I live in?", "Where am I from?", "Where is my home?", "~In which town is my home?"),
          "You live in {0}."),),
        "where you live", large=False),
    Kind(
        "job", "me", words.one_of(words.JOBS),
        ("I work as {a0} {0}.", "I am {a0} {0}.", "My job is to be {a0} {0}.", "I'm {a0} {0}.", "~For a living I am {a0} {0}."),
        ((("What is my job?", "What's my job?", "What do I do for a living?", "What is my work?", "~What do I work as?"),
          "You work as {a0} {0}."),),
        "what your job is", large=False),
    Kind(
        "age", "me", words.age,
        ("I am {0} years old.", "I'm {0} years old.", "My age is {0}.", "I turned {0} this year.", "~I have just become {0} years old."),
        ((("How old am I?", "What is my age?", "What's my age?", "Do you know how old I am?", "~How many years old am I?"),
          "You are {0} years old."),),
        "how old you are", large=False),
    Kind(
        "home", "person", words.one_of(words.TOWNS),
        ("{S} lives in {0}.", "{S} comes from {0}.", "{S} has moved to {0}.", "The home of {s} is in {0}.", "~{S} has a house in {0}."),
        ((("Where does {s} live?", "Which town does {s} live in?", "Where is the home of {s}?", "~In which town does {s} live?"),
          "{T} lives in {0}."),),
        "where {t} lives", large=False),
    Kind(
        "work", "person", words.one_of(words.JOBS),
        ("{S} works as {a0} {0}.", "{S} is {a0} {0}.", "{S} has a job as {a0} {0}.", "~For a living {s} is {a0} {0}."),
        ((("What is the job of {s}?", "What does {s} do for a living?", "What's {s}'s job?", "What does {s} work as?",
           "~Which job does {s} have?"), "{T} works as {a0} {0}."),),
        "what the job of {t} is", large=False),
    Kind(
        "food", "person", words.one_of(words.FOODS),
        ("{S} likes to eat {0}.", "{S} loves {0}.", "The favourite food of {s} is {0}.", "~{S} would eat {0} every day."),
        ((("What does {s} like to eat?", "What is the favourite food of {s}?", "What food does {s} love?", "~What should I cook for {s}?"),
          "{T} likes to eat {0}."),),
        "what {t} likes to eat", large=False),
    Kind(
        "birthday", "person", words.birthday,
        ("The birthday of {s} is on {0}.", "{S} was born on {0}.", "{S}'s birthday is {0}.", "~We celebrate the birthday of {s} on {0}."),
        ((("When is the birthday of {s}?", "When was {s} born?", "What day is {s}'s birthday?", "When is {s}'s birthday?",
           "~On which day was {s} born?"), "{T}'s birthday is on {0}."),),
        "when the birthday of {t} is", large=False),
    Kind(
        "meeting", "person", words.meeting,
        ("I meet {s} on {0} at {1}.", "I will see {s} on {0} at {1}.", "I have an appointment with {s} on {0} at {1}.",
         "~On {0} at {1} I have to meet {s}."),
        ((("When do I meet {s}?", "When will I see {s}?", "When is my appointment with {s}?", "~At what time do I meet {s}?"),
          "You meet {t} on {0} at {1}."),),
        "when you meet {t}", large=False),
    Kind(
        "favourite", "favourite", None,
        ("My favourite {s} is {0}.", "The {s} I like best is {0}.", "For me {0} is the best {s}.", "My best loved {s} is {0}.",
         "~Of all of them, the {s} I like most is {0}."),
        ((("What is my favourite {s}?", "What's my favourite {s}?", "Which {s} do I like best?", "Do you remember my favourite {s}?",
           "Tell me my favourite {s}.", "~Which {s} is my favourite?"), "Your favourite {s} is {0}."),),
        "your favourite {s}", large=False),
    Kind(
        "word", "word", None,
        ("The {s} is {0}.", "Remember: the {s} is {0}.", "My {s} is {0}.", "They say that {0} is the {s}.", "Remember that the {s} is {0}.",
         "~Please keep in mind that the {s} is {0}."),
        ((("What is the {s}?", "What's the {s}?", "What is my {s}?", "Tell me the {s}.", "Do you remember the {s}?",
           "~Can you tell me what the {s} is?"), "The {s} is {0}."),),
        "what the {s} is", large=False),
)

UPDATES = ("Actually, {}", "Correction: {}", "I was wrong. {}", "That has changed. {}", "I made a mistake. {}", "Sorry, I meant this: {}",
           "No, wait. {}", "Now it is different: {}", "Update: {}", "~Let me correct that. {}", "~Not quite. {}")
TELL_WRAPS = ("{}",) * 8 + ("Please remember this. {}", "{} Please remember that.", "By the way, {}", "Note this: {}", "Did you know? {}",
                            "You should know this: {}", "{} Keep it in mind.", "Remember: {}", "~Here is something to remember. {}", "~{} Do not forget it.", "~Also, {}", "~Keep this for me: {}")
ASK_WRAPS = ("{}",) * 8 + ("Please tell me: {}", "By the way, {}", "I have a question. {}", "Now a question: {}", "Do you remember? {}",
                           "Quick question: {}", "{} Please answer.", "Tell me, {}", "Hey, {}", "~Let me see what you remember. {}", "~One more thing: {}", "~So, {}", "~{} I forgot it.", "~Help me remember. {}")
CHECKS = ("Is it true that {}", "Is it right that {}", "Am I right that {}")
ABOUT = ("What do you know about {s}?", "What did I tell you about {s}?", "Tell me something about {s}.", "What do you remember about {s}?")

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
