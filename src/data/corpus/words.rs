//! The words of the stories, by role.
//!
//! An entry holds the forms of one choice, separated by `/`. Entries are separated by commas.

/// A part in a story. It is cast when the story first needs it, and kept to the story's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Role {
    Hero,
    Friend,
    Bond,
    Trait,
    Elder,
    Seller,
    Animal,
    SecondAnimal,
    Thing,
    SecondThing,
    ThirdThing,
    Colour,
    SecondColour,
    ThirdColour,
    GradSlot,
    SecondPlace,
    Spot,
    Weather,
    Time,
    Day,
    SecondDay,
    Glad,
    Sad,
    Tool,
    Strong,
    Task,
    Project,
    Material,
    SecondMaterial,
    Food,
    Container,
    Gift,
    SecondGift,
    Skill,
    Fragile,
    Glue,
}

/// The number of roles.
pub(super) const ROLES: usize = Role::Glue as usize + 1;

/// What a template may name: the slot, its role, and the form of the entry that it shows.
#[rustfmt::skip] // One slot a line would hide that a role's forms belong together.
pub(super) const SLOTS: &[(&str, Role, usize)] = &[
    ("hero", Role::Hero, 0), ("he", Role::Hero, 1), ("him", Role::Hero, 2), ("his", Role::Hero, 3), ("boy", Role::Hero, 4),
    ("friend", Role::Friend, 0),
    ("bond", Role::Bond, 0),
    ("trait", Role::Trait, 0),
    ("elder", Role::Elder, 0), ("elder-he", Role::Elder, 1),
    ("seller", Role::Seller, 0),
    ("animal", Role::Animal, 0), ("animal2", Role::SecondAnimal, 0),
    ("thing", Role::Thing, 0), ("thing2", Role::SecondThing, 0), ("thing3", Role::ThirdThing, 0),
    ("colour", Role::Colour, 0), ("colour2", Role::SecondColour, 0), ("colour3", Role::ThirdColour, 0),
    ("at-place", Role::GradSlot, 0), ("place", Role::GradSlot, 1),
    ("at-place2", Role::SecondPlace, 0), ("place2", Role::SecondPlace, 1),
    ("spot", Role::Spot, 0),
    ("weather", Role::Weather, 0), ("time", Role::Time, 0),
    ("day", Role::Day, 0), ("day2", Role::SecondDay, 0),
    ("glad", Role::Glad, 0), ("sad", Role::Sad, 0),
    ("tool", Role::Tool, 0), ("strong", Role::Strong, 0),
    ("task", Role::Task, 0), ("tasked", Role::Task, 1),
    ("project", Role::Project, 0), ("use", Role::Project, 1),
    ("material", Role::Material, 0), ("material2", Role::SecondMaterial, 0),
    ("food", Role::Food, 0), ("container", Role::Container, 0),
    ("gift", Role::Gift, 0), ("gift2", Role::SecondGift, 0),
    ("skill", Role::Skill, 0),
    ("fragile", Role::Fragile, 0), ("glue", Role::Glue, 0),
];

/// The entries that a role chooses from. Roles that share a table never hold the same entry at once.
pub(super) fn table(role: Role) -> &'static str {
    match role {
        Role::Hero | Role::Friend => NAMES,
        Role::Bond => "best friend, cousin, neighbour, good friend, old friend, dear friend",
        Role::Trait => TRAITS,
        Role::Elder => ELDERS,
        Role::Seller => SELLERS,
        Role::Animal | Role::SecondAnimal => ANIMALS,
        Role::Thing | Role::SecondThing | Role::ThirdThing => THINGS,
        Role::Colour | Role::SecondColour | Role::ThirdColour => COLOURS,
        Role::GradSlot | Role::SecondPlace => PLACES,
        Role::Spot => SPOTS,
        Role::Weather => "sunny, windy, cloudy, foggy, warm, cold, bright, quiet, misty, grey",
        Role::Time => "morning, afternoon, evening, day, Monday, Saturday, Sunday",
        Role::Day | Role::SecondDay => {
            "Mondays, Tuesdays, Wednesdays, Thursdays, Fridays, Saturdays, Sundays"
        }
        Role::Glad => "happy, glad, thankful, cheerful, joyful, pleased",
        Role::Sad => "sad, worried, upset, unhappy, very sad, very worried",
        Role::Tool => "rope, ladder, plank, pole, branch, net, blanket, stick, chain, board",
        Role::Strong => "long, strong, thick, heavy, sturdy, old, big",
        Role::Task => TASKS,
        Role::Project => PROJECTS,
        Role::Material | Role::SecondMaterial => MATERIALS,
        Role::Food => FOODS,
        Role::Container => "basket, box, bag, bucket, tin, sack, bowl, pot",
        Role::Gift | Role::SecondGift => GIFTS,
        Role::Skill => SKILLS,
        Role::Fragile => FRAGILES,
        Role::Glue => {
            "strong glue, thin wire, a little paste, silver tape, a strip of cloth, warm wax"
        }
    }
}

/// The names, each with its pronouns: subject, object, possessive; and what the child is.
const NAMES: &str = "Anna/she/her/her/girl, Bella/she/her/her/girl, Clara/she/her/her/girl, \
    Daisy/she/her/her/girl, Ella/she/her/her/girl, Fiona/she/her/her/girl, Grace/she/her/her/girl, \
    Hannah/she/her/her/girl, Ivy/she/her/her/girl, Julia/she/her/her/girl, Kate/she/her/her/girl, \
    Lily/she/her/her/girl, Mia/she/her/her/girl, Nora/she/her/her/girl, Olive/she/her/her/girl, \
    Penny/she/her/her/girl, Rosa/she/her/her/girl, Sally/she/her/her/girl, Tessa/she/her/her/girl, \
    Vera/she/her/her/girl, Wendy/she/her/her/girl, Yara/she/her/her/girl, Zoe/she/her/her/girl, \
    Martha/she/her/her/girl, \
    Adam/he/him/his/boy, Ben/he/him/his/boy, Carl/he/him/his/boy, David/he/him/his/boy, \
    Emil/he/him/his/boy, Felix/he/him/his/boy, George/he/him/his/boy, Henry/he/him/his/boy, \
    Ivan/he/him/his/boy, Jack/he/him/his/boy, Kevin/he/him/his/boy, Leo/he/him/his/boy, \
    Max/he/him/his/boy, Noah/he/him/his/boy, Oscar/he/him/his/boy, Peter/he/him/his/boy, \
    Ralph/he/him/his/boy, Sam/he/him/his/boy, Toby/he/him/his/boy, Victor/he/him/his/boy, \
    Walter/he/him/his/boy, Yusuf/he/him/his/boy, Zack/he/him/his/boy, Arthur/he/him/his/boy";

/// No word here begins with a silent h, and none with a u that sounds like `you`.
const TRAITS: &str = "kind, brave, clever, shy, curious, patient, cheerful, gentle, careful, lively, quiet, \
    polite, thoughtful, playful, hopeful, helpful, bold, friendly, funny, wise, eager, adventurous";

const ELDERS: &str = "Grandma/she, Grandpa/he, Aunt Mary/she, Uncle John/he, Mother/she, Father/he, \
    Aunt Jane/she, Uncle Paul/he";

const SELLERS: &str = "shopkeeper, sailor, miller, tailor, pedlar, potter, weaver, farmer, baker, toymaker, \
    gardener, carpenter, fisherman, old man, old woman";

const ANIMALS: &str = "fox, owl, hedgehog, rabbit, squirrel, otter, badger, mouse, duck, goose, frog, turtle, \
    cat, dog, lamb, robin, magpie, mole, beaver, hare, snail, beetle, crow, kitten, puppy, hen, sparrow, \
    toad, weasel, parrot";

const THINGS: &str = "kite, ball, toy boat, drum, hat, scarf, lantern, whistle, umbrella, book, mirror, bell, \
    button, ribbon, cup, spoon, key, puppet, spinning top, teapot, mitten, flute, apron, flag, feather, \
    seashell, marble, cap, purse, pencil, paintbrush, ring, comb, balloon, music box, yo-yo";

const COLOURS: &str = "red, blue, green, yellow, orange, purple, pink, white, black, brown, grey, silver, \
    golden, striped, spotted, tiny, shiny";

/// Places with their prepositions.
const PLACES: &str = "in the garden/the garden, in the park/the park, at the market/the market, \
    by the river/the river, on the beach/the beach, in the meadow/the meadow, in the forest/the forest, \
    on the farm/the farm, by the pond/the pond, at the school/the school, at the harbour/the harbour, \
    in the orchard/the orchard, on the hill/the hill, in the village/the village, by the mill/the mill, \
    by the lake/the lake, in the valley/the valley, at the castle/the castle, \
    by the lighthouse/the lighthouse, in the field/the field, by the stream/the stream";

/// Where small things hide, in any of the places.
const SPOTS: &str = "under an old bridge, behind a stone wall, inside a hollow log, under a pile of leaves, \
    between two big rocks, under a wooden bench, beside a deep well, beside a tall oak tree, \
    in the long grass, behind a water barrel, under a hay cart, under a rose bush, \
    behind a blackberry bush, under an apple tree, behind a picket fence, under a small cart, \
    inside a wooden barrel, behind a big white stone, under a fallen branch, beside an iron gate";

/// Tasks, and the same in the past.
const TASKS: &str = "sing a song/sang a song, tell a story/told a story, sweep the floor/swept the floor, \
    feed the hens/fed the hens, water the flowers/watered the flowers, carry the wood/carried the wood, \
    wash the windows/washed the windows, stack the boxes/stacked the boxes, \
    count the apples/counted the apples, pattern the door/painted the door, mend the fence/mended the fence, \
    dance a little dance/danced a little dance, rake the leaves/raked the leaves, \
    polish the spoons/polished the spoons, clean the stable/cleaned the stable";

/// What children build out of anything, and what an animal then does with it.
const PROJECTS: &str = "tree house/live in, raft/ride on, bench/sit on, swing/play on, little cart/ride in, \
    hut/sleep in, footbridge/walk across, playhouse/live in, tent/sleep in, tower/climb, \
    shelter/rest in, seesaw/play on, sled/ride on";

const MATERIALS: &str = "old boards, strong rope, straw, branches, planks, string, logs, crates, reeds, \
    bamboo sticks, wooden pegs, wooden poles, old doors, vines, willow twigs";

const FOODS: &str = "bread and cheese, plum cake, honey rolls, berry pie, pancakes, oat cookies, \
    roasted nuts, buttered toast, cherry tarts, ginger biscuits, apple cake, corn muffins, lemon buns, \
    pumpkin bread, potato salad";

const GIFTS: &str = "sweet berries, ripe pears, fresh nuts, wild strawberries, crisp apples, red cherries, \
    golden honey, juicy plums, tasty mushrooms";

const SKILLS: &str = "ride a bicycle, swim, whistle, skate, dance, pattern, juggle, sail a boat, climb a rope, \
    bake bread, fly a kite, tie a knot, play the flute, play chess, row a boat, knit, sing, read a map, \
    walk on stilts, skip stones, do a cartwheel, throw a ball";

const FRAGILES: &str = "cup, teapot, mirror, lantern, vase, plate, music box, drum, toy boat, jar, bowl, \
    wooden horse, clay bird, picture frame";

/// The entries of a table.
pub(super) fn entries(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.split(',').map(str::trim)
}

/// One form of an entry.
///
/// # Panics
///
/// If the entry has no such form: the tables and [`SLOTS`] disagree.
#[track_caller]
pub(super) fn form(entry: &'static str, number: usize) -> &'static str {
    entry
        .split('/')
        .nth(number)
        .unwrap_or_else(|| panic!("corpus: `{entry}` has no form {number}"))
}

/// Every name that a child can have.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    entries(NAMES).map(|entry| form(entry, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_slot_finds_its_form_in_every_entry() {
        for &(slot, role, number) in SLOTS {
            for entry in entries(table(role)) {
                assert!(!form(entry, number).is_empty(), "{slot}: {entry}");
            }
        }
    }

    #[test]
    fn a_table_has_no_entry_twice() {
        for &(slot, role, _) in SLOTS {
            let mut seen = HashSet::new();
            for entry in entries(table(role)) {
                assert!(seen.insert(form(entry, 0)), "{slot}: {entry}");
            }
        }
    }

    #[test]
    fn no_name_hides_in_another() {
        // Tests and readers count a name by its letters.
        let all: Vec<&str> = names().collect();
        for name in &all {
            assert_eq!(
                all.iter().filter(|other| other.contains(name)).count(),
                1,
                "{name}"
            );
        }
    }
}
