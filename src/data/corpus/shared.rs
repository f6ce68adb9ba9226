//! The beats that several plots share.

/// Beats that several plots begin or go on with.
pub(super) const SHARED: &[(&str, &str)] = &[
    ("opening", OPENING),
    ("bonded", BONDED),
    ("outing", OUTING),
    ("cheer", CHEER),
];

const OPENING: &str = r#"
Once upon a time there was {a trait} {boy} named {hero}.
There once was {a trait} {boy} called {hero}, who lived near {place}.
In a little house near {place} lived {a trait} {boy} named {hero}.
{Hero} was {a trait} {boy} who lived near {place}.
[Long ago|Last year|Last summer], {a trait} {boy} named {hero} lived near {place}.
"#;

const BONDED: &str = r#"
{His} {bond} was {friend}.
{Hero} had {a bond} named {friend}.
{Hero} and {his} {bond} {friend} [played together every day|were always together|did everything together].
"#;

const OUTING: &str = r#"
One {weather} {time}, {hero} and {friend} [went|walked|ran] to {place}.
It was {a weather} {time}, and {hero} and {friend} were {at-place}.
On {a weather} {time}, {hero} took {friend} to {place}.
"#;

const CHEER: &str = r#"
{Hero} and {friend} [danced|laughed|cheered] for joy.
{Hero} was so {glad} that {he} [danced|sang|laughed] for joy.
"#;
