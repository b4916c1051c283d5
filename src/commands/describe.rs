//! `describe`: a network as a table, or several beside each other.

use crate::config::Recipe;
use crate::data::DataSet;
use crate::error::Result;
use crate::net::spec::Net;
use crate::show::describe::{self, Description};

use crate::cli::{DescribeArgs, RecipeArgs};

pub fn describe(args: &DescribeArgs) -> Result<()> {
    let data = args.data.as_deref().map(DataSet::load).transpose()?;
    let named = |name: &String| RecipeArgs { recipe: Some(name.clone()), ..args.recipe.clone() };
    let asked: Vec<RecipeArgs> = match &args.recipes[..] {
        [] => vec![args.recipe.clone()],
        names => names.iter().map(named).collect(),
    };
    let recipe = |asked: &RecipeArgs| {
        let mut recipe = super::recipe(asked, "paper")?;
        if let Some(data) = &data {
            recipe.net.classes.get_or_insert(data.classes.len());
            recipe.net.image_channels.get_or_insert(data.train.channels);
        }
        Ok(recipe)
    };
    let recipes: Vec<Recipe> = asked.iter().map(recipe).collect::<Result<_>>()?;
    let facts = |recipe: &Recipe| {
        let net = Net::from_options(&recipe.net)?;
        describe::describe(&net, recipe.train.batch_size, recipe.state_names().len())
    };
    if args.toml {
        recipes.iter().for_each(|recipe| out!("{}", recipe.to_toml()));
        return Ok(());
    }
    let described = |recipe: &Recipe| Ok((recipe.name.clone(), facts(recipe)?));
    let networks: Vec<(String, Description)> = recipes.iter().map(described).collect::<Result<_>>()?;
    for (name, facts) in networks.iter().filter(|_| args.json) {
        outln!("{}", serde_json::json!({"recipe": name, "network": facts}));
    }
    match &networks[..] {
        _ if args.json => {}
        _ if args.shapes => networks.iter().for_each(|(_, facts)| out!("{}", describe::render_shapes(facts))),
        [(name, facts)] => out!("recipe {name}\n{}", describe::render(facts)),
        several => out!("{}", describe::render_beside(several)),
    }
    Ok(())
}
