//! The recipes that have a name: the files in `recipes/`.

/// Names and texts, the default first.
pub(super) const RECIPES: [(&str, &str); 4] = [
    ("quick", include_str!("../../recipes/quick.toml")),
    ("paper", include_str!("../../recipes/paper.toml")),
    ("fashion", include_str!("../../recipes/fashion.toml")),
    ("half", include_str!("../../recipes/half.toml")),
];

/// Names of the recipes, the default first.
pub const NAMES: [&str; RECIPES.len()] = {
    let mut names = [""; RECIPES.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = RECIPES[index].0;
        index += 1;
    }
    names
};
