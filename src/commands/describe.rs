//! `describe`: the network as a table.

use alexnet_split::error::Result;
use alexnet_split::net::describe;
use alexnet_split::net::spec::Net;

use crate::cli::DescribeArgs;

pub fn describe(args: &DescribeArgs) -> Result<()> {
    let recipe = super::recipe(&args.recipe, "paper")?;
    if args.toml {
        out!("{}", recipe.to_toml());
        return Ok(());
    }
    let net = Net::from_options(&recipe.net)?;
    let facts = describe::describe(&net, recipe.train.batch_size, recipe.state_names().len())?;
    if args.json {
        outln!("{}", serde_json::json!({"recipe": recipe.name, "network": facts}));
    } else {
        outln!("recipe {}", recipe.name);
        out!("{}", describe::render(&facts));
    }
    Ok(())
}
