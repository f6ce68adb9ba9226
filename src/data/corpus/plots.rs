//! The templates of the stories.
//!
//! A plot is a list of beats with blank lines between them. A beat is one or more lines, any of which may
//! tell it; the line `-` leaves it out. `story.rs` says how a line is filled. The last beat of every plot
//! says once more who did what, with what and where.

/// All plots, equally likely.
pub(super) const PLOTS: &[&str] = &[
    LOST, GIFT, RESCUE, QUARREL, BUILD, PICNIC, LEARN, TRADE, MAP, BROKEN, RACE, WAY_HOME, SONG,
];

const LOST: &str = r#"
{opening}

{He} had {a colour} {thing} and took it everywhere.
Of all {his} things, {he} loved {a colour} {thing} the most.
{Elder} had given {him} {a colour} {thing}.

One {weather} {time}, the {colour} {thing} was gone.
One {weather} {time}, {hero} could not find the {colour} {thing}.
But on {a weather} {time}, {hero} lost the {colour} {thing}.

"Have you seen my {colour} {thing}?" {he} asked the {animal}.

"No, I have not seen your {colour} {thing}," said the {animal}.

"Have you seen my {colour} {thing}?" {he} asked the {animal2}. "No, I have not seen your {colour} {thing}," said the {animal2}.

{Hero} was {sad}.
{Hero} sat down and [cried|sighed|thought].

Then {his} {bond} {friend} [came along|came by|came running] and said, "Let us look {at-place}."

They went to {place} and looked {spot}.
So {hero} and {friend} went to {place} and looked {spot}.

There it was, the {colour} {thing}!
"Here is the {colour} {thing}!" [cried|called|shouted] {friend}.

And that is how {hero} and {friend} found the {colour} {thing} {spot} {at-place}.
So {hero} and {friend} found the {colour} {thing} {spot} {at-place}.
"#;

const GIFT: &str = r#"
{opening}

{bonded}

Soon it was {friend}'s birthday, and {hero} wanted to give {friend} {a colour} {thing}.
"Tomorrow is {friend}'s birthday," said {elder}, "and {friend} wishes for {a colour} {thing}."
{Hero} knew that {friend} wished for {a colour} {thing}.

{Hero} went to the {seller} {at-place}.
{At-place}, {hero} met the {seller}.

"Do you have {a colour} {thing}?" asked {hero}.

"You may have my {colour} {thing}," said the {seller}, "if you {task}."
"I have {a colour} {thing}," said the {seller}, "but first you must {task}."

So {hero} {tasked}, and the {seller} gave {him} the {colour} {thing}.

{Hero} [put it in a box|wrapped it in paper|tied a bow around it] and [ran|hurried|walked] to {friend}.
-

"What a [fine|lovely|beautiful] {colour} {thing}! Thank you, {hero}!" said {friend}.
"This is the [finest|best] {colour} {thing} of all! Thank you, {hero}!" said {friend}.

{Friend} was very {glad}.

So {hero} {tasked} for the {seller} and gave {friend} {a colour} {thing}.
And that is how {hero} {tasked} {at-place} and gave {friend} {a colour} {thing}.
"#;

const RESCUE: &str = r#"
{opening}

{bonded}

{outing}

{At-place}, they heard a [small|sad|strange] [cry|noise|sound] {spot}.
Suddenly they heard a [small|sad|strange] [cry|noise|sound] {spot}.

"Help, I am stuck {spot}!" cried {a animal}.
It was {a animal}, and the {animal} cried, "I am stuck {spot}!"

"Do not [be afraid|worry|cry], little {animal}," said {hero}. "We will help you."
"We will help you, little {animal}," said {hero}.

{Friend} [ran|went|hurried] home and came back with {a strong} {tool}.

{Hero} held one end of the {strong} {tool}, and {friend} held the other end of the {strong} {tool}.
{Hero} and {friend} pulled at the {strong} {tool}, and the {strong} {tool} held.

[At last|Soon|After a while], the {animal} was free.

"Thank you, {hero}, and thank you, {friend}!" said the {animal}.

And that is how {hero} and {friend} saved the {animal} {spot} with {a strong} {tool}.
So {hero} and {friend} saved the {animal} {at-place} with {a strong} {tool}.
"#;

const QUARREL: &str = r#"
{opening}

{bonded}

{outing}

They found {a colour} {thing} {spot}.
There they saw {a colour} {thing} {spot}.

"The {colour} {thing} is mine!" said {hero}.
"I saw the {colour} {thing} first!" said {hero}.

"No, the {colour} {thing} is mine!" said {friend}.
"No, I saw the {colour} {thing} first!" said {friend}.

{A animal} [heard them|heard the noise|was listening]. "Why do you [shout|fight|quarrel]?" asked the {animal}.
"Why do you [shout|fight|quarrel]?" asked {a animal}.

"Share the {colour} {thing}, and you will both be happy," said the {animal}.
"It is more fun to share the {colour} {thing}," said the {animal}.

{Hero} and {friend} [said that they were sorry|shook hands|began to laugh].

On {day} {hero} had the {colour} {thing}, and on {day2} {friend} had the {colour} {thing}.

And that is how {hero} and {friend} learned to share the {colour} {thing} that they had found {spot}.
So {hero} and {friend} listened to the {animal} and shared the {colour} {thing}.
"#;

const BUILD: &str = r#"
{opening}

{bonded}

One {weather} {time}, {hero} wanted to build {a project} {at-place}.
{Hero} had always wanted to build {a project} {at-place}.

"May I help you build the {project}?" asked {friend}.

"Yes, let us build the {project} together," said {hero}.

{Hero} brought {material}, and {friend} brought {material2}.
They looked for {material} and {material2}, and soon they had enough.

Then [the wind blew|it began to rain|a storm came], and the {project} fell down.

"Let us try again with more {material}," said {friend}, and they tried again.
"We need more {material2}," said {hero}, and they found more {material2}.

[At last|In the end|Soon], the {project} was [ready|done|finished], and it was [strong|beautiful|just right].

"May I {use} the {project}?" asked the {animal}. "Yes, you may {use} the {project}," said {hero} and {friend}.
{Elder} came to see the {project}, and {elder-he} [clapped|smiled|was {glad}].

And that is how {hero} and {friend} built {a project} {at-place} out of {material} and {material2}.
So {hero} and {friend} built {a project} out of {material} and {material2} {at-place}.
"#;

const PICNIC: &str = r#"
{opening}

One {weather} {time}, {hero} and {elder} made {food}.
{Elder} gave {him} some {food} for a picnic.

{Hero} put the {food} in {a colour} {container} to share with {his} {bond} {friend} {at-place}.
{Hero} put the {food} in {a colour} {container} and went to meet {his} {bond} {friend} {at-place}.

On the way {he} met {a animal}, and the {animal} said, "I am so hungry."

"Then have some {food}," said {hero}, and the {animal} ate some {food}.

Next {he} met {a animal2}, and the {animal2} said, "I am so hungry."

"Then have some {food}," said {hero}, and the {animal2} ate some {food}.

{At-place}, {friend} looked into the {colour} {container}, and it was empty.
When {hero} came to {place}, the {colour} {container} was empty, and {friend} was {sad}.

But then the {animal} brought {gift}, and the {animal2} brought {gift2}.
But then came the {animal} with {gift} and the {animal2} with {gift2}.

They all sat down {at-place} and ate {gift} and {gift2}.
They [shared|ate] the {gift} and the {gift2} together.

So {hero} shared the {food} with the {animal} and the {animal2}, and they shared {gift} and {gift2} with {hero} and {friend}.
And that is how the {animal} and the {animal2} filled the {colour} {container} with {gift} and {gift2}.
"#;

const LEARN: &str = r#"
{opening}

{bonded}

{Friend} could {skill}, but {hero} could not {skill}.
{Hero} wanted to {skill} as well as {friend}.

"Please teach me to {skill}," said {hero}.
"Can you teach me to {skill}?" asked {hero}.

"I will teach you to {skill} {at-place}," said {friend}.

On the first day, {hero} [made many mistakes|did it all wrong|gave up too soon] and said, "I cannot {skill}." "Try again," said {friend}.

On the second day, {hero} [did a little better|almost did it|was not afraid] and said, "I cannot {skill} yet." "Try again," said {friend}.

On the third day, {hero} could {skill}!
On the third day, {hero} could {skill} as well as {friend}.

Even the {animal} {at-place} [was surprised|stopped to look|came to watch].
{cheer}

And that is how {friend} taught {hero} to {skill} {at-place}.
So {hero} learned to {skill} {at-place}, and {friend} was the teacher.
"#;

const TRADE: &str = r#"
{opening}

{He} had {a colour} {thing}, but {he} [was tired of it|did not need it|wanted something new].
{Elder} gave {him} {a colour} {thing}, but {he} [did not need it|wanted something else].

{At-place}, {hero} met {a animal} with {a colour2} {thing2}.
One {weather} {time}, {he} met {a animal} with {a colour2} {thing2}.

"I will give you my {colour2} {thing2} for your {colour} {thing}," said the {animal}.

So {hero} gave away the {colour} {thing} and took the {colour2} {thing2}.

Then {hero} met {his} {bond} {friend} with {a colour3} {thing3}.
{At-place2}, {hero} met {his} {bond} {friend} with {a colour3} {thing3}.

"I will give you my {colour3} {thing3} for your {colour2} {thing2}," said {friend}.

So {hero} gave away the {colour2} {thing2} and took the {colour3} {thing3}.

"[This is just what I wanted|I like this one best|This one I will keep]," said {hero}, and {he} was {glad}.
{Hero} [ran|walked|skipped] home and felt {glad}.

First {hero} had {a colour} {thing}, then {a colour2} {thing2}, and at last {a colour3} {thing3}.
And that is how {hero} turned {a colour} {thing} into {a colour2} {thing2} and {a colour2} {thing2} into {a colour3} {thing3}.
"#;

const MAP: &str = r#"
{opening}

{bonded}

One {weather} {time}, {hero} and {friend} found an old map {at-place}.
One {weather} {time}, {elder} gave {hero} and {friend} an old map of {place2}.

"The map says that {a colour} {thing} lies {spot} {at-place2}," said {hero}.
"Look, {friend}, the map says that {a colour} {thing} lies {spot} {at-place2}," said {hero}.

"Then let us go to {place2} and look {spot}," said {friend}.

They walked [all morning|a long way] from {place} to {place2}.
It was [a long|a short|an easy] way from {place} to {place2}.

"What are you looking for?" asked {a animal} {at-place2}.
{At-place2} {a animal} asked, "What are you looking for?"

"We are looking for {a colour} {thing}," said {hero} and {friend}.

"Then you must look {spot}," said the {animal}, so they looked {spot}.
They looked {spot}, and the {animal} helped them.

There lay {a colour} {thing}, [covered with dust|as good as new|wrapped in cloth].

{cheer}
-

And that is how {hero} and {friend} found {a colour} {thing} {spot} {at-place2}.
So {hero} and {friend} went from {place} to {place2} and found {a colour} {thing} {spot}.
"#;

const BROKEN: &str = r#"
{opening}

{bonded}

{Friend} had {a colour} {fragile} and let {hero} carry it to {place}.
One {weather} {time}, {hero} was playing with {friend}'s {colour} {fragile} {at-place}.

{Hero} [slipped|fell|stumbled], and the {colour} {fragile} broke.
Then {a animal} [jumped out|rushed by|made a loud noise], {hero} dropped the {colour} {fragile}, and it broke.

"What will {friend} say?" thought {hero}, who was {sad}.
{Hero} [picked up|gathered|looked at] the pieces and was {sad}.

"I am sorry, {friend}, I broke your {colour} {fragile}," said {hero}.

"Thank you for telling me that you broke it," said {friend}. "We can mend the {colour} {fragile} with {glue}."
"We can mend the {colour} {fragile} with {glue}," said {friend}.

{Elder} gave them {glue}, and they [sat down|went to work|began at once].
They found {glue} {at-place2}.

They mended the {colour} {fragile} with {glue}, piece by piece.

[Soon|In the end|By evening], the {colour} {fragile} was [whole again|almost as good as new|better than before].
"The {colour} {fragile} looks [better than before|almost new]," said {friend}, and {hero} was {glad}.

So {hero} broke {friend}'s {colour} {fragile} {at-place}, and together they mended it with {glue}.
And that is how {hero} and {friend} mended the {colour} {fragile} with {glue}.
"#;

const RACE: &str = r#"
Once there was {a animal} that lived {at-place} next to {a animal2}.
Long ago, {a animal} and {a animal2} lived {at-place}.
{At-place} there lived a very [proud|loud|vain] {animal} and {a animal2}.

"I am faster than you," said the {animal} to the {animal2}.

"Let us run a race from {place} to {place2}," said the {animal2}.

"The winner will get {a colour} {thing}," said {a trait} {boy} named {hero}.
{A trait} {boy} named {hero} said, "The winner will get my {colour} {thing}."

{Hero} counted to three, and they ran.
"One, two, three, go!" [called|shouted|cried] {hero}, and they ran.

At first the {animal} was ahead, but it stopped to [sleep|rest|take a nap] {spot}.
The {animal} ran ahead, but soon it stopped to [sleep|rest|take a nap] {spot}.

The {animal2} was behind, but it [did not stop|never stopped|kept on running].

[So|In the end|At last] the {animal2} was the first to come to {place2}.
When the {animal} woke up {spot}, the {animal2} was already {at-place2}.

"You have won the race," said {hero}, and gave the {animal2} the {colour} {thing}.

The {animal} was {sad}, but the {animal2} shared the {colour} {thing} with the {animal}.
"Next time I will not stop {spot}," said the {animal}.
-

And that is how the {animal2} won {a colour} {thing} in the race from {place} to {place2}.
So the {animal2} won the race to {place2}, and the {animal} that stopped {spot} did not.
"#;

const WAY_HOME: &str = r#"
{opening}

One {weather} {time}, {hero} met a little {animal} {at-place}.
{At-place}, {he} met a little {animal} that was {sad}.

"I am lost," said the little {animal}. "I live {spot} {at-place2}."

"I will take you home to {place2}," said {hero}.
"Do not [cry|worry|be afraid], I will take you home to {place2}," said {hero}.

They asked {a animal2}, "Where is {place2}?" "Go past [the church|the old mill|the big tree]," said the {animal2}.
{Hero} asked {his} {bond} {friend}, "Where is {place2}?" "I will show you the way to {place2}," said {friend}.

[It was a long way|It was getting dark|The little {animal} was tired], so {hero} [sang a song|told a story|carried the little {animal}].
-

Soon they came to {place2} and looked {spot}.
[At last|Before night], they came to {place2} and looked {spot}.

There was the mother of the little {animal}, and she was so {glad}!
"My little {animal}!" cried the mother of the little {animal}.

She gave {hero} {a colour} {thing} [to say thank you|as a present].
"Thank you, {hero}, and take this {colour} {thing}," she said.

And that is how {hero} took the little {animal} home to {place2} and got {a colour} {thing}.
So {hero} brought the little {animal} from {place} to its home {spot} {at-place2}.
"#;

const SONG: &str = r#"
{opening}

{He} had {a colour} {thing} and made a song about it.
{He} loved to sing about {his} {colour} {thing}.

"I have {a colour} {thing}, {a colour} {thing} have I," sang {hero}.

The {animal} {at-place} liked the song and sang along.
{At-place} {a animal} heard the song and sang along.

"You have {a colour} {thing}, {a colour} {thing} have you," sang the {animal}.

Then {hero}'s {bond} {friend} [came along|came by|heard them] and sang along, too.

"We have {a colour} {thing}, {a colour} {thing} have we," sang {hero}, {friend} and the {animal}.

They sang [until the moon came up|all day long|until supper] and ate {food}.
{Elder} [clapped|smiled|laughed] and gave them {food}.
-

And that is how {hero}, {friend} and the {animal} sang about {a colour} {thing} {at-place}.
So {hero}, {friend} and the {animal} sang the song of the {colour} {thing} {at-place}.
"#;
