"""Many more phrasings for training alone, composed from parts: what is asked for, times the ways to ask for it.

Slots and "(a|b)" are those of phrases.py. "<>" in a frame stands for a noun phrase ("the code of {s}") or for a clause ("what opens {s}").
Whatever comes near a held-out phrasing is left out: see `near`.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import phrases
from phrases import Kind, expansions

NOUN_FRAMES = (
    "(What is|What's) <>?", "(Could you|Will you|Would you|Can you) (tell me|say) <>?", "(Would you please|Could you kindly) tell me <>?",
    "I (would like|want|need) to (know|hear) <>.", "I (am asking|ask) (you |)for <>.", "(Let me|I must) (hear|have|know) <>.",
    "(Now |Please )(say|tell me) <>.",
    "<>, please.", "<>, what is it?", "<>?", "You (surely |)(know|remember) <>, (right|do you not)?", "What (did I say|have I said) <> is?",
    "(Search your memory for|Look up|Find|Repeat|Quote|Show me|Recall) <>.",
    "I (no longer know|can not think of|do not remember|am not sure of) <>.",
    "(Who can|Will anybody) tell me <>?", "Have I told you <>?", "Did I (tell you|mention|say) <>?",
    "I told you <>(.|,) (Which|which) was it?", "(Somebody|My friend|A man) (asks for|wants to know) <>.",
    "(Is|Was) <> known to you?", "(Help|Serve) me with <>.", "(May|Can) I (ask for|hear|have) <>?", "(Answer|Listen): what is <>?",
    "Do you have <> (in mind|at hand)?",
    "(Any idea|No idea) of <>?", "(Think of|Go back to) <>. What is it?",
)
CLAUSE_FRAMES = (
    "(Tell me|Say|Remind me|Explain|Answer) <>.", "(Please |Kindly )(tell me|say|let me know) <>.",
    "Do you (still |)(know|see|have in mind) <>?",
    "(Could you|Will you|Would you|Are you able to) (tell me|say) <>?", "I (would like|want|need) to (know|hear) <>.",
    "I (wonder|must know|am not sure|do not remember) <>.",
    "(Did I tell|Have I told) you <>?", "Did I (say|mention) <>?", "(Any idea|Guess|Think) <>?",
    "(Somebody|My friend|A man) (asks|wants to know) <>.",
    "(Let me hear|Show me|Find out) <>.", "You (surely |)(know|remember) <>, (right|do you not)?", "Let us see if you know <>.",
)


@dataclass(frozen=True)
class Asked:
    """What a question may be made of: noun phrases, clauses, and whole questions."""

    nouns: Sequence[str] = ()
    clauses: Sequence[str] = ()
    whole: Sequence[str] = ()


# By kind and subject; one for each of the kind's answers.
ASKED: dict[tuple[str, str], tuple[Asked, ...]] = {
    ("name", "me"): (Asked(
        ("my name", "my own name", "my first name",
         "the name (of mine|I have|I bear|I go by|I told you|that is mine|that belongs to me|I gave you)"),
        ("who I am", "what I am called", "how I am (called|named)", "what (people|friends|they|you) (should |can |)call me",
         "which name (I have|is mine|belongs to me|I use|I bear|was given to me)", "what my (parents|friends) (call|named|called) me",
         "how to call me"),
        ("Which name (is mine|belongs to me|do I have|do I use|do I bear|was given to me|did my parents give me)?",
         "How (should|do|can|will) you (call|address|greet) me?",
         "Who (is|am I,) (talking|speaking|writing) to you?", "(Greet|Call|Address) me by (my |)name.",
         "With whom (do you|are you) (talk|talking|speaking)?",
         "What do you call me?", "Who (is it that|)(writes|talks) to you?", "Do I have a name?",
         "What should (people|you|others) call me?"),
    ),),
    ("called", "relation"): (Asked(
        ("the name of {s}", "{s}'s (own |first |)name", "the name (that |)(belongs to {s}|{s} has|{s} bears|{s} uses|I gave you for {s})"),
        ("what {s} is (called|named)", "which name {s} (has|bears|uses|answers to)", "what (people|you|I|we) call {s}",
         "how (people|we) (call|address) {s}"),
        ("(Which|What) name (belongs to|is that of|was given to) {s}?", "(Which|What) name does {s} (bear|use|answer to|have)?",
         "By (which|what) name do (we|I|people) know {s}?",
         "How (should|do|can) (I|we|people) (address|greet|call) {s}?", "To (which|what) name does {s} answer?", "Does {s} have a name?",
         "{S} has a name. Which?",
         "{S} has a name, what is it?", "Who is it, {s}?", "I (speak|talk) of {s}. (Which|What) name is it?"),
    ),),
    ("pet", "person"): (
        Asked(
            ("the (pet|animal) of {s}", "{s}'s (pet|animal)", "the (pet|animal) (that |){s} (keeps|has|owns|feeds)",
             "the (pet|animal) (that |which )belongs to {s}",
             "the (pet|animal) (in the house|at the home) of {s}", "the (kind|sort) of (pet|animal) (that |){s} has"),
            ("(what|which) (pet|animal) {s} (keeps|has|owns|feeds|bought)", "(what|which) (pet|animal) belongs to {s}",
             "what (kind|sort) of animal {s} (keeps|has)",
             "(what|which) (pet|animal) is {s}'s", "(whether|if) {s} has a pet", "(what|which) animal {s} takes care of",
             "what {s} keeps (at home|as a pet)"),
            ("(What|Which) (pet|animal) is (owned|kept|fed) by {s}?",
             "(What|Which) (pet|animal) does {s} (feed|take care of|walk|call {s}'s own)?",
             "(What|Which) (pet|animal) is (that of {s}|{s}'s)?", "(What|Which) (pet|animal) did {s} (get|buy|adopt|choose|bring home)?",
             "To {s} belongs (which|what) (pet|animal)?",
             "(Is there|Does {s} have) an animal (in|at) {s}'s (house|home)?", "What does {s} (keep|have) (as a pet|at home)?",
             "(What|Which) animal (waits for|shares a home with|is dear to) {s}?",
             "Has {s} (got |)(a pet|an animal)?", "{S} has a pet. (What|Which) is it?",
             "{S} keeps an animal. (Which one|Which|What kind)?", "As a pet, what does {s} keep?",
             "Of (which|what) (pet|animal) is {s} the (master|keeper)?",
             "(What|Which) (pet|animal) would I (see|meet|find) at {s}'s home?"),
        ),
        Asked(
            ("the name of {s}'s (pet|animal)", "the name of the (pet|animal) (that |){s} (keeps|has|owns|feeds)",
             "the name (that |){s} gave (to |)the (pet|animal)",
             "the name of the (pet|animal) (that |which )belongs to {s}", "{s}'s (pet's|animal's) name"),
            ("what {s}'s (pet|animal) is (called|named)", "which name the (pet|animal) of {s} (has|bears|answers to)",
             "what the (pet|animal) of {s} is (called|named)"),
            ("(Which|What) name does {s}'s (pet|animal) (have|bear)?", "(Which|What) name did {s} (give|choose for) the (pet|animal)?",
             "To (which|what) name does the (pet|animal) of {s} (answer|listen)?", "(Which|What) name belongs to {s}'s (pet|animal)?",
             "Does the pet of {s} have a name?",
             "{S} has a pet. What is its name?", "{S} keeps an animal. What is it called?", "By (which|what) name does {s} know the pet?"),
        ),
    ),
    ("pet", "me"): (
        Asked(
            ("my (own |)(pet|animal)", "the (pet|animal) (that |)(I keep|I have|I own|I feed)",
             "the (pet|animal) (that |which )(belongs to me|is mine)", "the (pet|animal) of mine",
             "the (pet|animal) (in my house|at my home|at my place)", "the (kind|sort) of (pet|animal) (that |)I have"),
            ("(what|which) (pet|animal) I (keep|have|own|feed|bought)", "(what|which) (pet|animal) (belongs to me|is mine)",
             "what (kind|sort) of animal I (keep|have)",
             "what my (pet|animal) is", "(whether|if) I have a pet", "(what|which) animal I take care of",
             "what I keep (at home|as a pet)"),
            ("(What|Which) (pet|animal) (belongs to me|is mine|is my own|is owned by me|is kept by me|is fed by me)?",
             "(What|Which) (pet|animal) do I (feed|take care of|walk|call my own)?",
             "(What|Which) (pet|animal) did I (get|buy|adopt|choose|bring home)?", "To me belongs (which|what) (pet|animal)?",
             "(What|Which) (pet|animal) have I (got|bought|chosen)?",
             "(Is there|Do I have) an animal (in|at) my (house|home)?", "What do I (keep|have) (as a pet|at home)?",
             "(What|Which) animal (waits for me|shares a home with me|is dear to me|depends on me)?",
             "Have I (got |)(a pet|an animal)?", "I have a pet. (What|Which) is it?", "I keep an animal. (Which one|Which|What kind)?",
             "As a pet, what do I keep?", "My (pet|animal)?",
             "(What|Which) (pet|animal) would (you|a guest) (see|meet|find) at my (home|house)?",
             "What (kind|sort) of (pet|animal) (do I keep|do I have|is mine|belongs to me)?",
             "Of (which|what) (pet|animal) am I the (master|keeper)?"),
        ),
        Asked(
            ("(my pet's|my animal's) name", "the name of my (own |)(pet|animal)",
             "the name of the (pet|animal) (that |)(I keep|I have|I own|I feed|belongs to me)",
             "the name (that |)I gave (to |)my (pet|animal)"),
            ("what my (pet|animal) is (called|named)", "which name my (pet|animal) (has|bears|answers to)", "what I named my (pet|animal)",
             "what my (pet's|animal's) name is"),
            ("(Which|What) name does my (pet|animal) (have|bear)?", "(Which|What) name did I (give|choose for) my (pet|animal)?",
             "To (which|what) name does my (pet|animal) (answer|listen)?", "(Which|What) name belongs to my (pet|animal)?",
             "Does my (pet|animal) have a name?",
             "I have a pet. What is its name?", "I keep an animal. What is it called?", "What did I name my (pet|animal)?",
             "By (which|what) name do I know my pet?"),
        ),
    ),
    ("code", "object"): (Asked(
        ("the (code|PIN|number|digits) (of|for) {s}", "{s}'s (code|PIN)",
         "the (code|number) (that |which )(opens {s}|unlocks {s}|{s} has|belongs to {s})",
         "the (code|number|digits) (I|we|you) (type|enter|press) to (open|unlock) {s}"),
        ("(which|what) (code|PIN|number) (opens|unlocks|belongs to) {s}", "how (to|I can|one can) (open|unlock|get into) {s}",
         "(which|what) (code|PIN) {s} (has|needs|wants)",
         "what (I|you|we) (must|have to|should) (type|enter|press) (at|to open|to unlock) {s}", "what {s}'s code is",
         "what the (code|PIN) (of|for) {s} is"),
        ("(Which|What) (number|PIN) (opens|unlocks|fits) {s}?", "(Which|What) digits (open|unlock|fit) {s}?",
         "What (must|should|do) (I|we|you) (type|enter|press|use) (at|for|to unlock) {s}?",
         "(With|By) (which|what) (code|number|PIN) (do I get {s} open|is {s} opened|is {s} unlocked)?",
         "{S} is (locked|closed). (What|Which) code (helps|do I type)?",
         "I (stand|am) (before|at) {s}. What (must|do) I (enter|type)?", "How (is|does one open|will we open|could I open) {s}?",
         "(Which|What) (code|number) did I (set|choose|give you) for {s}?",
         "{S} (wants|asks for) a code. Which?", "(Open|Unlock) {s} for me, what is the (code|number)?", "Does {s} have a code?",
         "To (open|unlock) {s}, (what|which code) do I type?"),
    ),),
    ("password", "object"): (Asked(
        ("the (password|passphrase|secret phrase|secret words) (of|for) {s}", "{s}'s (password|passphrase)",
         "the password (that |which )(opens {s}|unlocks {s}|{s} has|belongs to {s})",
         "the (password|words) (I|we|you) (say|type|whisper) to (open|enter) {s}"),
        ("(which|what) (password|passphrase) (opens|unlocks|belongs to) {s}", "(which|what) password {s} (has|needs|wants)",
         "what (I|you|we) (must|have to|should) (say|type|whisper) (at|to open) {s}",
         "what {s}'s password is", "what the password (of|for) {s} is"),
        ("(Which|What) (words|secret words) (open|unlock|fit) {s}?", "(Which|What) passphrase (opens|unlocks|fits) {s}?",
         "What (must|should|do) (I|we|you) (say|whisper) (at|to|to open) {s}?",
         "(With|By) (which|what) (password|words) (do I get {s} open|is {s} opened|is {s} unlocked)?",
         "{S} is (locked|closed). (What|Which) password (helps|do I type)?",
         "I (stand|am) (before|at) {s}. What (must|do) I (say|whisper)?",
         "(Which|What) (password|words) did I (set|choose|give you) for {s}?", "{S} (wants|asks for) a password. Which?",
         "(Open|Unlock) {s} for me, what is the password?", "Does {s} have a password?",
         "To (open|enter) {s}, (what|which password) do I (say|type)?"),
    ),),
    ("phone", "person"): (Asked(
        ("the (phone number|telephone number|number|phone) of {s}", "{s}'s (phone |telephone |)number",
         "the (phone |)number (for|that belongs to) {s}", "the (phone |)number (that |){s} has",
         "the (phone |)number (where|under which|at which) {s} (answers|can be reached|can be found)",
         "the (phone |)number (that |)I (dial|call|ring|need|use) for {s}", "the digits of {s}'s phone"),
        ("how (I can|one can|to) (call|phone|ring|get) {s}", "(which|what) (phone number|number) {s} (has|uses)",
         "(which|what) number I (must|should|can|have to) (dial|ring|call|type) for {s}",
         "(where|under which number|at which number) (I can call {s}|{s} answers|{s} can be reached)", "what {s}'s (phone |)number is",
         "(which|what) number belongs to {s}",
         "(what|which number) to dial for {s}"),
        ("(Which|What) (phone |)number (belongs to|is that of|is used by) {s}?",
         "(Under|At|On) (which|what) number (does {s} answer|is {s} on the phone|can I phone {s}|is {s} found)?",
         "What (must|should|do|can) (I|we) (dial|type|enter|press) to (talk to|speak to|speak with|get) {s}?",
         "(Which|What) (digits|numbers) (must|should|do) I (dial|press|enter|type) for {s}?",
         "How do (I|we) get {s} on the (phone|line)?",
         "I (would like|want) to (phone|ring|talk to|speak with) {s}. (Which|What) number (is right|must I take|do I use)?",
         "{S} must be called. (Which|What) number (is it|do I dial)?", "Does {s} have a (phone number|phone|telephone)?",
         "How (can {s} be|is {s}) reached by (phone|telephone)?",
         "(Which|What) number do (people|you|we) (dial|ring|call|use) for {s}?",
         "If I (call|ring|phone) {s}, (which|what) number do I (take|use|dial)?",
         "To (call|ring|phone) {s}, (which|what) number (is right|do I use)?",
         "I have to ring {s} up. (Which|What) number?", "(Which|What) is the (right |)(number|phone number) for {s}?",
         "When I (call|phone) {s}, what do I dial?", "Who has {s}'s number?"),
    ),),
    ("place", "small"): (Asked(
        ("the place (of|for|where I put|where I left|where you find) {s}", "{s}'s place", "the place (that |){s} is in",
         "the (hiding place|spot) of {s}"),
        ("where {s} (is|lay|can be found|was put|was left|stands|belongs|might be)",
         "where (I|we) (put|left|hid|placed|can find|keep) {s}", "in (which|what) (place|spot) {s} (is|was put)",
         "what (holds|hides|contains) {s}", "where to (find|look for) {s}"),
        ("Where (was|has) {s} (put|been put|left|been left|hidden)?",
         "(In|At) (which|what) (spot|place) (do I find|did I leave|did we put|is kept) {s}?", "What (holds|hides|contains) {s}?",
         "Where (might|could|must|would) {s} be?", "Where (can|does) {s} (be found|stand|belong|be)?",
         "I (lost|miss|can not see) {s}. Where (did I put it|is it)?", "How do I find {s}?",
         "Where (have I|did you see me) (put|leave) {s}?", "{S} is gone. Where (do|must) I look?", "(Find|Show me|Bring me to) {s}.",
         "Inside what is {s}?", "{S}: where?"),
    ),),
    ("possession", "possession"): (Asked(("{s}",), ("what {s} is", "which one {s} is"), ("{S}, which is it?",
     "(What|Which) did I say about {s}?")),),
    ("who", "named"): (Asked((), ("who {s} is", "who {s} is to me", "how I know {s}"), ("What is {s} to me?",
     "(What|Who) is {s} for me?", "How am I related to {s}?")),),
    ("colour", "owned"): (Asked(
        ("the colour (of|that I gave) {s}", "{s}'s colour"), ("(what|which) colour {s} (is|has)",
         "how {s} is painted"), ("How is {s} painted?", "Of (what|which) colour is {s}?"),
    ),),
    ("like", "me"): (Asked((), ("what I (like|love|enjoy)", "what I am fond of", "what pleases me",
     "what is dear to me"), ("What (pleases me|is dear to me|makes me happy)?",)),),
    ("town", "me"): (Asked(
        ("my (town|city|home town)",
         "the (town|city) (I live in|of mine|where I live|that is home to me)"), ("where I (live|come from|am from|reside)",
         "(which|what) (town|city) (I live in|is my home|is home to me)"),
        ("(Which|What) (town|city) is (home to me|my home|mine)?", "Where (am I at home|would a guest find me|do I reside)?",
         "To which town do I go home?"),
    ),),
    ("job", "me"): (Asked(
        ("my (own |)(job|work|profession|trade)", "the (job|work) (that |)(I do|I have|is mine)"), ("what I do (for a living|for work)",
         "(which|what) (job|profession) (I have|is mine|belongs to me)"),
        ("How do I earn (my money|a living)?", "(Which|What) (job|profession|trade) (is mine|belongs to me)?"),
    ),),
    ("age", "me"): (Asked(("my (own |)age", "the age (of mine|that I have)"), ("how old I am", "what my age is",
     "which age is mine"), ("(Which|What) age (do I have|is mine)?", "What age am I?")),),
    ("years", "person"): (Asked(("{s}'s age", "the age (of {s}|that {s} has)"), ("how old {s} is",
     "what age {s} has"), ("(Which|What) age (does {s} have|is {s})?", "Of what age is {s}?")),),
    ("home", "person"): (Asked(
        ("the (town|city|home) (of {s}|where {s} lives)",
         "{s}'s (home|town|city)"), ("where {s} (lives|comes from|is from|resides|is at home)", "(which|what) (town|city) {s} lives in"),
        ("(Which|What) (town|city) is (home to {s}|{s}'s home)?", "Where is {s} at home?", "Where would I (visit|find) {s}?"),
    ),),
    ("work", "person"): (Asked(
        ("the (job|work|profession|trade) (of {s}|that {s} has)",
         "{s}'s (job|work|profession|trade)"), ("what {s} does (for a living|for work)",
         "(which|what) (job|profession) (is {s}'s|belongs to {s})"),
        ("How does {s} earn (money|a living)?", "(Which|What) (profession|trade) does {s} have?"),
    ),),
    ("food", "person"): (Asked(
        ("{s}'s (favourite |)(food|dish)", "the (food|dish) (that |){s} (likes|loves)"), ("what {s} (likes|loves) to eat",
         "(which|what) (food|dish) {s} (likes|loves)"),
        ("(Which|What) (food|dish) (pleases|is dear to) {s}?", "What does {s} enjoy eating?"),
    ),),
    ("birthday", "person"): (Asked(
        ("{s}'s birthday", "the (birthday|date of birth) of {s}"), ("when {s} was born", "when {s} has a birthday",
         "when the birthday of {s} is"), ("When does {s} (have a birthday|celebrate)?", "On which date is {s}'s birthday?"),
    ),),
    ("meeting", "person"): (Asked(
        ("the (time|date) of my (meeting|appointment) with {s}",
         "my (appointment|meeting|date) with {s}"), ("when I (will |)(meet|see|visit) {s}", "when {s} comes",
         "when my (meeting|appointment) with {s} is"),
        ("(On which day|When) (am I to|do I have to) (meet|see) {s}?", "When is {s} (coming|expected)?"),
    ),),
    ("favourite", "favourite"): (Asked(
        ("my favourite {s}", "my best loved {s}",
         "the {s} (that |)(I like best|I love most|I like most|is dear to me|pleases me most)"),
        ("(which|what) {s} I (like|love) (best|most)", "what my favourite {s} is", "(which|what) {s} pleases me most"),
        ("(Which|What) {s} (pleases me most|is dear to me)?", "Of all, (which|what) {s} do I (like|love) (best|most)?"),
    ),),
    ("word", "word"): (Asked(("(the|my|our) {s}", "the {s} I told you"), ("what (the|my|our) {s} is",
     "which {s} I told you"), ("What did I say about the {s}?", "The {s}, which is it?")),),
}

_CALLED = ("(called|named) {2}", "and its name is {2}", "whose name is {2}", "with the name {2}", "that answers to {2}",
           "that goes by the name {2}", "and (I|we|they) call it {2}", "and it is called {2}", "(the name is {2})")
# By kind and subject: the first parts and the last parts of what tells a fact.
TOLD: dict[tuple[str, str], tuple[tuple[Sequence[str], Sequence[str]], ...]] = {
    ("pet", "me"): (
        (("(I keep|I have|I own|I feed|I walk|I adopted|I found|I bought|I got|I have got|I take care of) {a0} {0} {1}",
         "My (own |)(pet|animal) is {a0} {0} {1}",
          "I have a pet, {a0} {0} {1}", "(At home|In my house|At my place) (I have|I keep|there is) {a0} {0} {1}",
          "I share my (home|house) with {a0} {0} {1}",
          "There is {a0} {0} {1} in my (house|home|garden)", "The (pet|animal) (I keep|of mine|that belongs to me) is {a0} {0} {1}",
          "{A0} {0} {1} (belongs to me|is mine|is my pet|lives in my house|lives at my place)"), _CALLED),
        (("{2} is (my pet,|the name of my pet,) {a0} {0} {1}",
         "{2}, {a0} {0} {1}, (is mine|belongs to me|is my pet|lives at my home|sleeps in my house)", "{2} is my {0} {1}",
         "My {0} {1} is (called|named) {2}", "My pet {2} is {a0} {0} {1}",
          "The name of my pet is {2}, and it is {a0} {0} {1}", "My pet is called {2}, it is {a0} {0} {1}"), ("", "and I like it",
          "as you know")),
    ),
    ("pet", "person"): (
        (("{S} (feeds|walks|adopted|found|bought|got|has got|takes care of|keeps|has|owns) {a0} {0} {1}", "{S} has a pet, {a0} {0} {1}",
         "(At home|In the house) {s} (has|keeps) {a0} {0} {1}",
          "{S} shares a (home|house) with {a0} {0} {1}", "There is {a0} {0} {1} in the (house|home) of {s}",
          "The (pet|animal) (that belongs to|kept by|of) {s} is {a0} {0} {1}",
          "{A0} {0} {1} (belongs to {s}|is {s}'s pet)"), _CALLED),
        (("{2} is (the pet of {s},|the name of {s}'s pet,) {a0} {0} {1}", "{2}, {a0} {0} {1}, is {s}'s pet",
         "{2}, {a0} {0} {1}, (lives at {s}'s home|sleeps in the house of {s})", "{2} is {s}'s {0} {1}",
         "{S}'s {0} {1} is (called|named) {2}", "{S}'s pet {2} is {a0} {0} {1}",
          "{S} calls the {0} {1} {2}", "The name of {s}'s pet is {2}, and it is {a0} {0} {1}"), ("", "and I like it", "as you know")),
    ),
    ("phone", "person"): (
        (("The (phone number|number|telephone number) (for|that belongs to|used by) {s} is {0}",
         "{S} (uses|answers|is on) the number {0}", "(At|Under) {0} you (find|get|hear) {s}",
          "(Ring|Dial|Call|Phone|Use) {0} when you (need|want|call) {s}", "{S} can be (reached|found) (at|under) {0}",
          "{0} (belongs to {s}|rings at {s}'s home|gets you {s})"), ("", "as you know", "by the way")),
    ),
    ("code", "object"): (
        (("The (PIN|code) that opens {s} is {0}", "The digits (for|of|that open) {s} are {0}",
         "{S} (wants|asks for|needs|takes) the (digits|PIN|code|number) {0}", "(With|By) {0} {s} is (opened|unlocked)",
          "{0} is what you (type|enter|press) at {s}", "(Type|Press|Enter) {0} at {s}",
          "The (lock|keypad) of {s} (takes|wants) {0}"), ("", "as you know", "by the way")),
    ),
    ("password", "object"): (
        (("{S} (wants|asks for|needs|takes) the (password|words|passphrase) {0}",
         "(With|By) the (password|words) {0} {s} is (opened|unlocked)", "The (words for {s} are|passphrase for {s} is) {0}",
          "(Type|Whisper) {0} at {s}", "The lock of {s} wants to hear {0}"), ("", "as you know", "by the way")),
    ),
}


@lru_cache(maxsize=None)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a phrasing; whom it is about counts for nothing: "my pet" and "{s}'s pet" are the same."""
    text = re.sub(r"\{[sn]\}('s)?", " me ", text.lower())
    return tuple(re.findall(r"[a-z]+|\{\w+\}", re.sub(r"\b(my|i)\b", "me", text).replace("'s", " is")))


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Words to put in, to take out or to exchange between the two."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(last + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def near(text: str, held: Iterable[tuple[str, ...]]) -> bool:
    """True when the text contains a held-out phrasing, or differs from one by a single word or by a third of its words or less."""
    some = words_of(text)
    for other in held:
        limit = max(1, len(other) // 3)
        alike = len(set(some) - set(other)) <= limit and abs(len(some) - len(other)) <= limit
        if alike and distance(some, other) <= limit or any(some[i : i + len(other)] == other for i in range(len(some) - len(other) + 1)):
            return True
    return False


def held_out(name: str) -> set[tuple[str, ...]]:
    """The words of the held-out phrasings, told and asked, of the kinds of this name."""
    kinds = [kind for kind in phrases.KINDS if kind.name == name]
    templates = [t for kind in kinds for some in (kind.tell, *(asked for asked, _ in kind.ask)) for t in some]
    return {words_of(text) for t in templates if t.startswith("~") for text in expansions(t[1:])}


def _joined(name: str, frames: Iterable[str], parts: Iterable[str]) -> tuple[str, ...]:
    """Every part in every frame, but for what is near a held-out phrasing of kinds of this name."""
    held, made = held_out(name), {}
    parts = [text for part in parts for text in expansions(part)]
    for frame in (text for template in frames for text in expansions(template)):
        for part in parts:
            text = frame.replace("<>", part)
            made[text.replace("{s}", "{S}", 1) if text.startswith("{s}") else text[0].upper() + text[1:]] = None
    return tuple(text for text in made if not near(text, held))


@lru_cache(maxsize=None)
def asks(name: str, subject: str, answer: int) -> tuple[tuple[str, ...], ...]:
    """Lists of questions for one answer of a kind, to draw from in equal parts."""
    asked = ASKED[name, subject][answer]
    lists = _joined(name, NOUN_FRAMES, asked.nouns), _joined(name, CLAUSE_FRAMES, asked.clauses), _joined(name, ("<>",), asked.whole)
    return tuple(some for some in lists if some)


@lru_cache(maxsize=None)
def tells(name: str, subject: str) -> tuple[tuple[str, ...], ...]:
    """Lists of what tells a fact, to draw from in equal parts; none for kinds that have no composed ones."""
    made = []
    for first, last in TOLD.get((name, subject), ()):
        made.append(_joined(name, (f"<>{' ' if end[:1] not in ('', ',') else ''}{end}." for end in last), first))
    return tuple(made)


def ask(kind: Kind, answer: int, rng: random.Random) -> str:
    return rng.choice(rng.choice(asks(kind.name, kind.subject, answer)))


def tell(kind: Kind, rng: random.Random) -> str | None:
    lists = tells(kind.name, kind.subject) if kind.large else ()
    return rng.choice(rng.choice(lists)) if lists else None
