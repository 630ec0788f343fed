"""Small talk of the demo world: what people say besides facts, and what the model answers.

`CHAT` pairs ways to say something with the answers; `SENTENCES` and the samplers below make the text that users paste.
"""

import random

from words import ADJECTIVES, ANIMALS, COLOURS, CONTAINERS, FOODS, JOBS, MONTHS, NOUNS, ROOMS, SMALL_OBJECTS, TOWNS, Lexicon, digits

CHAT: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("Hello!", "Hi!", "Hello.", "Hi there!", "Hey!", "hello", "hi", "Good day!", "Greetings!", "Hello there.", "hey there"),
     ("Hello! What would you like to tell me?",)),
    (("Good morning!", "Good morning.", "Morning!"), ("Good morning! I hope you slept well.",)),
    (("Good evening!", "Good evening."), ("Good evening! How was your day?",)),
    (("Good night!", "Good night.", "I am going to bed."), ("Good night! Sleep well.",)),
    (("How are you?", "How are you today?", "How do you do?", "how are you", "How is it going?", "What's up?", "Are you well?",
      "How are you doing?"), ("I am fine, thank you. And you?",)),
    (("I am fine.", "I'm fine, thanks.", "Fine, thank you.", "Very well!", "I am doing well.", "Good, thanks."),
     ("I am glad to hear that.",)),
    (("I am tired.", "I'm so tired today.", "I did not sleep well.", "I am sleepy."), ("Then take a rest. I will still be here.",)),
    (("I am sad.", "I feel sad today.", "I am not happy.", "It was a bad day."), ("I am sorry to hear that. Tell me about it.",)),
    (("I am happy!", "I feel great today.", "What a good day!", "I am so happy."), ("That is lovely to hear!",)),
    (("I am bored.", "I'm bored.", "There is nothing to do."), ("Tell me some facts, and then test what I remember.",)),
    (("I am hungry.", "I'm hungry.", "I want to eat something."), ("Then have something nice to eat!",)),
    (("Thank you!", "Thanks!", "Thank you very much.", "thanks", "Thanks a lot.", "Many thanks!", "Thank you.", "thx"),
     ("You are welcome!",)),
    (("Goodbye!", "Bye!", "See you later.", "bye", "See you tomorrow!", "I have to go now.", "Goodbye.", "Bye bye."),
     ("Goodbye! It was nice to talk to you.",)),
    (("Who are you?", "What are you?", "who are you", "What is your name?", "What's your name?", "Tell me about yourself.",
      "Introduce yourself.", "What should I call you?", "Who am I talking to?", "Do you have a name?"),
     ("I am a small demo model of Statehouse. I remember what you tell me.",)),
    (("Are you human?", "Are you a robot?", "Are you real?", "Are you a person?", "Are you a machine?"),
     ("No human: I am a small language model.",)),
    (("What can you do?", "What do you do?", "How can you help me?", "Help!", "help", "What are you good at?", "Help me, please."),
     ("I remember facts that you tell me. I can also count, repeat after you and chat a little.",)),
    (("How big are you?", "How large are you?", "How many parameters do you have?", "What size are you?"),
     ("I am tiny: about five million parameters.",)),
    (("Who made you?", "Where do you come from?", "Who built you?", "Who trained you?"),
     ("I come with Statehouse, and a program wrote all that I have learned.",)),
    (("How do you remember?", "How does your memory work?", "Why can you remember so much?", "Do you have a good memory?"),
     ("My memory is a state of fixed size: it does not grow with what you tell me.",)),
    (("What is Statehouse?", "Tell me about Statehouse.", "What's Statehouse?"),
     ("Statehouse is a server for power-retention language models.",)),
    (("What is power retention?", "Explain power retention.", "What's power retention?"),
     ("A kind of attention whose memory has a fixed size.",)),
    (("Can you keep a secret?", "Can I trust you?", "Will you tell anybody?"), ("What you tell me stays in this chat.",)),
    (("Tell me a joke.", "Do you know a joke?", "Make me laugh.", "Another joke, please.", "Say something funny."),
     ("Why did the heron cross the river? Its memory was on the other side.",)),
    (("Tell me a story.", "Can you tell me a story?", "A story, please."),
     ("Once a small fox met an old heron. They talked all night and forgot nothing.",)),
    (("Sing a song.", "Can you sing?", "Sing for me."), ("La la la! That is all I can sing.",)),
    (("The weather is nice today.", "It is sunny today.", "What a lovely day!", "The sun is shining."),
     ("How nice! Enjoy the sun.",)),
    (("It is raining.", "It rains again.", "The weather is awful.", "It is cold today."), ("Then it is a good day to stay inside.",)),
    (("How is the weather?", "What is the weather like?", "Will it rain tomorrow?"), ("I can not see the weather from here.",)),
    (("What time is it?", "What day is it?", "What is the date today?"), ("I have no clock, so I do not know.",)),
    (("Yes.", "Yes!", "yes", "Sure.", "Of course."), ("Good.",)),
    (("No.", "no", "No, thanks.", "Not really."), ("All right.",)),
    (("Okay.", "OK", "ok", "All right.", "I see.", "Fine."), ("Fine. What else?",)),
    (("Great!", "Well done!", "Good job!", "Cool!", "Nice!", "Wow!", "That is right.", "Correct!", "Very good."), ("Thank you!",)),
    (("That is wrong.", "You are wrong.", "No, that is not right.", "Wrong!"), ("I am sorry. Please tell me again.",)),
    (("Are you there?", "Are you still there?", "Can you hear me?"), ("Yes, I am here.",)),
    (("I love you.", "I like you.", "You are nice.", "You are great!"), ("That is kind of you.",)),
    (("You are stupid.", "You are dumb.", "I do not like you."), ("I am sorry. I am only a small model.",)),
    (("Do you like music?", "Do you like animals?", "Do you like me?", "Do you like the sea?"), ("I like everything that you tell me about.",)),
    (("How old are you?", "When were you born?", "What is your age?"), ("I am very young: I was trained not long ago.",)),
    (("Where do you live?", "Where are you?"), ("I live in a small file on your computer.",)),
    (("Do you sleep?", "Do you dream?", "Do you eat?"), ("No, I only read and write.",)),
    (("I went to the market today.", "I read a good book.", "I had a long day at work.", "We had guests last night.", "I took a long walk.",
      "I cleaned the whole house.", "Today I baked a cake.", "I watched the birds in the garden."), ("That sounds good. Tell me more.",)),
    (("What do you know about me?", "What did I tell you?", "Tell me everything you know.", "What do you remember?",
      "Do you remember what I said?", "What have I told you so far?"), ("Ask me about one thing, and I will tell you what you said.",)),
    (("Do you remember me?", "Do you know me?", "Have we met?"), ("I know what you told me in this chat.",)),
    (("Please remember what I tell you.", "I will tell you some facts.", "Now I tell you something.", "Can I tell you something?",
      "Let us begin.", "I want to test your memory.", "Let's play a memory game.", "I have something to tell you."), ("I am listening.",)),
    (("Forget everything.", "Forget what I said."), ("I can not forget on demand. Start a new chat for that.",)),
    (("You are right.", "Exactly!", "Right.", "Yes, that is it.", "You remembered it!", "Good memory!"), ("I am glad that I remembered it.",)),
    (("Are you sure?", "Really?", "Is that so?"), ("I think so, but I am a small model.",)),
    (("Sorry.", "I am sorry.", "Excuse me.", "Pardon me."), ("No problem!",)),
    (("Wait a moment.", "One moment, please.", "Hold on."), ("I will wait.",)),
)

QUESTIONS = ("What is the capital of {}?", "Who wrote the {} book?", "How far is it to {}?", "Who is the king of {}?", "How do I cook {}?",
             "Why is the {} so {}?", "What does {} mean?", "How much does a {} cost?", "Who won the {} game?", "When was {} built?",
             "Can you explain {}?", "How do I repair a {}?", "What is the best {} in {}?", "Who invented the {}?", "How tall is {}?",
             "Where can I buy a {}?", "What is {}?", "Is {} bigger than {}?", "How many people live in {}?", "How do you spell {}?")
NO_IDEA = ("I do not know that. I only know what you tell me.",)
TASKS = ("Write a poem about {}.", "Write a program that sorts {}.", "Translate {} into French.", "Write an essay about {}.", "Draw a {}.",
         "Write an email to {}.", "Solve this equation: {} x = {}.", "Play {} with me.", "Search the web for {}.", "Summarize {}.")
TOO_SMALL = ("I am too small for that. But I can remember what you tell me.",)
PUZZLED = ("I did not understand that. Can you say it in other words?",)

SYSTEM = ("You are a helpful assistant.", "You are a friendly assistant that remembers what the user tells it.", "Be brief.",
          "You are a small model of Statehouse. Answer briefly.", "You are a helpful, honest assistant. Answer in English.",
          "Answer the questions of the user.", "You are a chat bot.", "Remember what the user says.")

PASTED = ("Here are my notes:\n", "Please read this:\n", "Here is a long text.\n", "Read this, please: ", "This is from my diary:\n",
          "I found this text:\n\n", "Some notes first.\n", "Please look at this text:\n\n", "For your information:\n", "", "", "",
          "Just some text that you can ignore:\n", "Listen: ", "This is what I wrote today:\n")

SENTENCES = """The river was high after the long rain, and the ferry stayed on the other side.
Nobody could say who had left the lamp burning in the tower.
In the morning we walked up the hill and counted the boats in the bay.
The train was late again, so they drank tea and talked about the garden.
A good map is worth more than a fast horse.
She wrote three letters, sealed two of them and burned the last.
The price of wheat rose slowly until the end of the summer.
If the pump fails, close the valve first and then call the workshop.
Every autumn the geese rest for a week on the lake behind the mill.
The committee met on the second floor and agreed on very little.
Add the flour slowly, stir well, and let the dough rest for an hour.
It took them the whole winter to repair the roof of the old barn.
He had never seen the sea, but he could draw every kind of ship.
The results were better than last year, although the sample was small.
Please remember to switch off the heating before you leave the building.
The old clock in the hall strikes thirteen when the wind turns north.
On page nine the author explains why the bridge could not be saved.
They planted beans between the rows of corn, as their parents had done.
The software keeps a list of all open files and writes it to disk at night.
Most visitors come in May, when the orchards are in bloom.
A thin layer of snow covered the market, and nobody bought any apples.
The two brothers disagreed about the fence for more than twenty years.
You can reach the village by bus, by boat or on foot.
The museum opens late on weekdays and is closed in January.
Water boils sooner in the mountains, and soup takes longer to cook.
The teacher asked a question that no one in the class had expected.
When the music stopped, the dancers went on for a moment in silence.
The report mentions four causes, but only the first is certain.
There is a small shop at the corner that sells thread, buttons and needles.
Our neighbours painted their house twice because the first colour was too bright.
The fishermen say that the weather will hold until the new moon.
A letter from the office arrived, but it was meant for someone else.
The path follows the stream for an hour and then climbs to the pass.
He read the contract slowly, line by line, and signed nothing.
The bakery burned down in the spring and was rebuilt before the harvest.
Students may borrow up to five books and must return them within a month.
The engine ran smoothly until the oil pressure began to fall.
From the roof one can see the harbour, the lighthouse and the islands.
The first version was simple; the second was fast; the third was both.
At the end of the evening nobody wanted to be the first to go home.""".split("\n")

_VERBS = "saw found carried painted lost bought sold moved liked wanted watched forgot repaired hid opened closed described".split()
_TIMES = ("yesterday", "last week", "in the evening", "before noon", "every day", "after the storm", "at night", "for an hour", "again")


def _noun_phrase(rng: random.Random) -> str:
    return f"the {rng.choice(ADJECTIVES + COLOURS)} {rng.choice(rng.choice((NOUNS, ANIMALS, SMALL_OBJECTS, JOBS)))}"


def sentence(rng: random.Random, lexicon: Lexicon) -> str:
    """One sentence of prose."""
    if rng.random() < 0.3:
        return rng.choice(SENTENCES)
    who = lexicon.name(rng) if rng.random() < 0.3 else _noun_phrase(rng)
    what = _noun_phrase(rng)
    form = rng.randrange(6)
    if form == 0:
        text = f"{who} {rng.choice(_VERBS)} {what} {rng.choice(_TIMES)}."
    elif form == 1:
        text = f"{rng.choice(_TIMES)}, {who} {rng.choice(_VERBS)} {what} near {rng.choice(TOWNS)}."
    elif form == 2:
        text = f"there were {rng.randint(2, 999)} {rng.choice(FOODS)} and {what} in the {rng.choice(ROOMS)}."
    elif form == 3:
        text = f"{who} and {_noun_phrase(rng)} {rng.choice(_VERBS)} {what}, but nobody knew why."
    elif form == 4:
        text = f"when {who} {rng.choice(_VERBS)} {what}, it was {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}."
    else:
        text = f"{who} went to {rng.choice(TOWNS)} in {rng.choice(MONTHS)} and {rng.choice(_VERBS)} a {rng.choice(CONTAINERS)}."
    return text[0].upper() + text[1:]


def scrap(rng: random.Random, lexicon: Lexicon) -> str:
    """One line that is not prose: a log line, a list item, code, a word salad."""
    word = lexicon.word
    form = rng.randrange(7)
    if form == 0:
        return f"20{digits(rng, 2)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d} {word(rng)}: {word(rng)} {digits(rng, 3)} ok"
    if form == 1:
        return f"- {rng.randint(1, 99)} {word(rng)}, {word(rng)} ({rng.randint(1, 999)})"
    if form == 2:
        return f"{word(rng)}_{word(rng)} = {word(rng)}({digits(rng, 2)}, \"{word(rng)}\");"
    if form == 3:
        return f"| {word(rng)} | {digits(rng, 4)} | {digits(rng, 2)}.{digits(rng, 1)} |"
    if form == 4:
        return " ".join(lexicon.word(rng) for _ in range(rng.randint(3, 14))) + rng.choice((".", "", "!", ","))
    if form == 5:
        return f"if {word(rng)} > {rng.randint(0, 99)}: return {word(rng)}[{rng.randint(0, 9)}]"
    return " ".join(digits(rng, rng.randint(1, 6)) for _ in range(rng.randint(2, 8)))


def skill(rng: random.Random, lexicon: Lexicon) -> tuple[str, str]:
    """Counting, adding, repeating: a request and its answer."""
    form = rng.randrange(8)
    if form < 3:
        first, count = rng.choice((1, 1, rng.randint(0, 40), rng.randint(0, 99))), rng.randint(2, 14)
        last = first + count
        if form == 2:
            asks = (f"Count down from {last} to {first}.", f"Count backwards from {last} to {first}.", f"count down from {last} to {first}")
            return rng.choice(asks), ", ".join(map(str, range(last, first - 1, -1))) + "."
        asks = (f"Count from {first} to {last}.", f"Please count from {first} to {last}.", f"Can you count from {first} to {last}?",
                f"count from {first} to {last}", f"Count {first} to {last}.")
        if first == 1:
            asks += (f"Count to {last}.", f"Can you count to {last}?", f"count to {last}")
        return rng.choice(asks), ", ".join(map(str, range(first, last + 1))) + "."
    if form == 3:
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        asks = (f"What is {a} plus {b}?", f"What is {a} + {b}?", f"Add {a} and {b}.", f"How much is {a} plus {b}?", f"{a} + {b} = ?")
        return rng.choice(asks), f"{a} plus {b} is {a + b}."
    pick = rng.random()
    if pick < 0.5:
        text = rng.choice((lexicon.title(rng), " ".join(lexicon.word(rng) for _ in range(rng.randint(1, 8)))))
    elif pick < 0.75:
        text = sentence(rng, lexicon)
    else:
        text = rng.choice((digits(rng, rng.randint(2, 6)), lexicon.name(rng), rng.choice(rng.choice(CHAT)[0])))
    asks = (f"Repeat after me: {text}", f"Say: {text}", f"Please repeat: {text}", f"Repeat this: {text}", f"Say this after me: {text}",
            f"repeat after me: {text}", f"Can you repeat this? {text}", f"Echo: {text}")
    return rng.choice(asks), text


def beyond(rng: random.Random, lexicon: Lexicon) -> tuple[str, str]:
    """A question or a task that the model can not answer, or no sentence at all."""
    pick = rng.random()
    if pick < 0.1:
        return " ".join(lexicon.word(rng) for _ in range(rng.randint(1, 3))), PUZZLED[0]
    patterns, answer = (QUESTIONS, NO_IDEA) if pick < 0.7 else (TASKS, TOO_SMALL)
    pattern = rng.choice(patterns)
    return pattern.format(*(rng.choice((lexicon.word, lexicon.name))(rng) for _ in range(pattern.count("{}")))), answer[0]
