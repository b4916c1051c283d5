//! The recipes that have a name: the files in `recipes/`, and the paper's ablations in `recipes/ablations/`.

/// Names and texts, the default first.
pub(super) const RECIPES: [(&str, &str); 8] = [
    ("quick", include_str!("../../recipes/quick.toml")),
    ("paper", include_str!("../../recipes/paper.toml")),
    ("source", include_str!("../../recipes/source.toml")),
    ("fashion", include_str!("../../recipes/fashion.toml")),
    ("half", include_str!("../../recipes/half.toml")),
    ("tiny", include_str!("../../recipes/tiny.toml")),
    ("lenet", include_str!("../../recipes/lenet.toml")),
    ("figure1", include_str!("../../recipes/figure1.toml")),
];

/// Names of the recipes, the default first.
pub const NAMES: [&str; RECIPES.len()] = names(&RECIPES);

macro_rules! ablations {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../recipes/ablations/", $name, ".toml")))),*] };
}

/// Names and texts of recipes that change one thing of another.
pub(super) const CHANGES: [(&str, &str); 15] = ablations![
    "one-gpu",
    "no-communication",
    "communication-everywhere",
    "one-tower",
    "no-lrn",
    "pool-2-2",
    "tanh",
    "no-dropout",
    "no-colour-noise",
    "no-crops",
    "no-conv3",
    "no-conv4",
    "no-conv5",
    "no-fc7",
    "figure1-tanh"
];

/// Names of the recipes that change one thing of another; `reproduce` has the claims that they belong to.
pub const ABLATIONS: [&str; CHANGES.len()] = names(&CHANGES);

const fn names<const N: usize>(recipes: &[(&'static str, &str); N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = recipes[index].0;
        index += 1;
    }
    names
}
