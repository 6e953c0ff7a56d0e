//! The command line.

use std::path::PathBuf;

/// What `shop --help` says.
pub(crate) const HELP: &str = "\
A small web shop whose sessions live in Kiln: two nodes, two processes, one set of sessions.

Usage: shop [--port PORT] [--profile PATH]
       shop --check [--clients N] [--rounds N] [--profile PATH]

  --port PORT    the first node's port; the second node takes the one after it, or the
                 next free one [default: 8081]
  --profile PATH the kiln.toml of a coordinator that runs already (`kiln serve`), to use
                 that one [default: the shop starts one of its own]
  --check        start the shop on free ports, drive both nodes with many clients at once,
                 and exit 0 only if no update was lost and every logout held everywhere
  --clients N    clients of --check, 1 to 128 [default: 64]
  --rounds N     rounds of writes that each client makes, 1 to 10000 [default: 50]
  -h, --help     this text

Stop the shop with Ctrl-C.";

const PORT: u16 = 8081;

/// What to do.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Command {
    /// Print the help.
    Help,
    /// Run the shop until it is stopped.
    Run {
        /// The first node's port.
        port: u16,
        profile: Option<PathBuf>,
    },
    /// Drive the shop and count.
    Check { load: Load, profile: Option<PathBuf> },
    /// Be one node; only the shop itself asks for that.
    Node(Node),
}

/// How much `--check` does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
}

/// What a node is told by the process that starts it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) profile: PathBuf,
    /// 0: any. Otherwise, if it is taken, one of the next.
    pub(crate) port: u16,
}

/// Reads the arguments after the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == "node").is_some() {
        return parse_node(arguments);
    }
    let (mut port, mut profile, mut check, mut load) = (None, None, false, Load { clients: 64, rounds: 50 });
    let mut only_check = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(Command::Help),
            "--check" => check = true,
            "--profile" => profile = Some(path(arguments.next())?),
            "--port" => port = Some(number(&argument, arguments.next(), 1, 65_000)?),
            "--clients" => load.clients = number(&argument, arguments.next(), 1, 128)?,
            "--rounds" => load.rounds = number(&argument, arguments.next(), 1, 10_000)?,
            _ => return Err(format!("there is no option `{argument}`")),
        }
        if matches!(argument.as_str(), "--clients" | "--rounds") {
            only_check = Some(argument);
        }
    }
    match (check, port, only_check) {
        (true, None, _) => Ok(Command::Check { load, profile }),
        (true, Some(_), _) => Err("`--check` takes free ports: leave `--port` out".to_owned()),
        (false, _, Some(option)) => Err(format!("`{option}` goes with `--check`")),
        (false, port, None) => Ok(Command::Run { port: port.unwrap_or(PORT), profile }),
    }
}

fn parse_node(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let (Some(name), Some(profile), port, None) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("`node` is what the shop starts itself with: NAME PROFILE PORT".to_owned());
    };
    let port = number("PORT", port, 0, u16::MAX)?;
    Ok(Command::Node(Node { name, profile: profile.into(), port }))
}

fn path(text: Option<String>) -> Result<PathBuf, String> {
    let path = text.filter(|path| !path.starts_with('-'));
    path.map(PathBuf::from).ok_or_else(|| "`--profile` needs the path of a kiln.toml".to_owned())
}

fn number<N>(option: &str, text: Option<String>, min: N, max: N) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    let wanted = format!("`{option}` needs a number from {min} to {max}");
    let number = text.and_then(|text| text.parse().ok()).filter(|number| (min..=max).contains(number));
    number.ok_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_form_of_the_command_line() {
        let check = |clients, rounds, profile: Option<&str>| {
            Ok(Command::Check { load: Load { clients, rounds }, profile: profile.map(PathBuf::from) })
        };
        assert_eq!(parse_line(""), Ok(Command::Run { port: 8081, profile: None }));
        assert_eq!(parse_line("--port 9000"), Ok(Command::Run { port: 9000, profile: None }));
        let profile = Some(PathBuf::from("kiln.toml"));
        assert_eq!(parse_line("--profile kiln.toml"), Ok(Command::Run { port: 8081, profile }));
        assert_eq!(parse_line("--check"), check(64, 50, None));
        assert_eq!(parse_line("--clients 8 --check --rounds 3"), check(8, 3, None));
        assert_eq!(parse_line("--check --profile kiln.toml"), check(64, 50, Some("kiln.toml")));
        assert_eq!(parse_line("--check --help"), Ok(Command::Help));
        let node = Node { name: "web-1".into(), profile: "/tmp/kiln.toml".into(), port: 0 };
        assert_eq!(parse_line("node web-1 /tmp/kiln.toml 0"), Ok(Command::Node(node)));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let mistake = |line| parse_line(line).unwrap_err();
        assert_eq!(mistake("--prot 1"), "there is no option `--prot`");
        assert_eq!(mistake("--port"), "`--port` needs a number from 1 to 65000");
        assert_eq!(mistake("--profile --check"), "`--profile` needs the path of a kiln.toml");
        assert_eq!(mistake("--port 70000"), "`--port` needs a number from 1 to 65000");
        assert_eq!(mistake("--check --clients 0"), "`--clients` needs a number from 1 to 128");
        assert_eq!(mistake("--clients 3"), "`--clients` goes with `--check`");
        assert_eq!(mistake("--check --port 1"), "`--check` takes free ports: leave `--port` out");
        assert!(mistake("node web-1").contains("NAME PROFILE PORT"));
    }
}
