/**
 * Completion scripts, generated from the tree of commands. Static but for the names of VMs and
 * images, which the scripts ask `qmp-agent __complete` for. Pure.
 */
import type { Argument, Command, Option } from 'commander';

/** Shells that there is a script for. */
export const SHELLS = ['bash', 'zsh'] as const;
/** One of them. */
export type Shell = (typeof SHELLS)[number];

/** What a word may be: fixed words, names to ask for, or files. */
type Source =
  | { readonly kind: 'words'; readonly words: readonly string[] }
  | { readonly kind: 'ask'; readonly what: 'vms' | 'images' | 'templates' }
  | { readonly kind: 'files' }
  | { readonly kind: 'none' };

/** Values of options, by long flag. */
const OPTION_VALUES: Readonly<Record<string, Source>> = {
  '--accel': { kind: 'words', words: ['auto', 'kvm', 'tcg'] },
  '--config': { kind: 'files' },
  '--env-file': { kind: 'files' },
  '--file': { kind: 'files' },
  '--image': { kind: 'ask', what: 'images' },
  '--log-file': { kind: 'files' },
  '--log-format': { kind: 'words', words: ['pretty', 'json'] },
  '--log-level': {
    kind: 'words',
    words: ['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'],
  },
  '--machine': { kind: 'words', words: ['q35', 'microvm'] },
  '--output': { kind: 'files' },
  '--pcap': { kind: 'files' },
  '--template': { kind: 'ask', what: 'templates' },
  '--trace': { kind: 'words', words: ['qmp', 'argv', 'agent'] },
};

/** One place in the tree: `''` is the program, `image build` a subcommand. */
interface Place {
  readonly path: string;
  /** Commands that can come next. */
  readonly names: readonly string[];
  readonly options: readonly string[];
  readonly optionsWithValue: ReadonlyMap<string, Source>;
  readonly operands: Source;
}

/** The script for a shell. */
export function completionScript(program: Command, shell: Shell): string {
  const places = collect(program, '');
  const body = bashFunction(places);
  if (shell === 'bash') return `${body}\ncomplete -o default -F _qmp_agent qmp-agent\n`;
  // zsh runs bash's function by its own compatibility layer.
  return `#compdef qmp-agent
autoload -U +X compinit && (( \${+functions[compdef]} )) || compinit
autoload -U +X bashcompinit && bashcompinit
${body}
complete -o default -F _qmp_agent qmp-agent
`;
}

function collect(command: Command, path: string): Place[] {
  const children = command.commands.filter((child) => !isHidden(child));
  const options = command.options.filter((option) => !option.hidden);
  const flags = options.flatMap((option) => flagsOf(option));
  const names = children.flatMap((child) => [child.name(), ...child.aliases()]);
  const place: Place = {
    path,
    names: [...names, ...(path === '' ? ['help'] : [])],
    options: [...new Set([...flags, '--help'])],
    optionsWithValue: new Map(
      options
        .filter((option) => option.required || option.optional)
        .flatMap((option) => {
          const source = OPTION_VALUES[option.long ?? ''] ?? { kind: 'none' as const };
          return flagsOf(option).map((flag) => [flag, source] as const);
        }),
    ),
    operands: operandsOf(command.registeredArguments),
  };
  const below = children.flatMap((child) =>
    [child.name(), ...child.aliases()].flatMap((name) => collect(child, `${path} ${name}`.trim())),
  );
  return [place, ...below];
}

function flagsOf(option: Option): string[] {
  return [option.short, option.long].filter((flag) => flag !== undefined);
}

function isHidden(command: Command): boolean {
  return (command as unknown as { _hidden: boolean })._hidden;
}

function operandsOf(args: readonly Argument[]): Source {
  const name = args[0]?.name();
  if (name === 'vm') return { kind: 'ask', what: 'vms' };
  if (name === 'image') return { kind: 'ask', what: 'images' };
  if (name === 'template') return { kind: 'ask', what: 'templates' };
  if (name === 'shell') return { kind: 'words', words: SHELLS };
  if (name === 'source') return { kind: 'files' };
  return { kind: 'none' };
}

/**
 * The function walks the words up to the cursor: options with a value take the next one, the first
 * words are the path in the tree, `--` ends what is ours.
 */
function bashFunction(places: readonly Place[]): string {
  const paths = places.filter((place) => place.path !== '').map((place) => quote(place.path));
  const patterns = new Map<string, string[]>();
  for (const place of places) {
    for (const [flag, source] of place.optionsWithValue) {
      const known = patterns.get(reply(source)) ?? [];
      patterns.set(reply(source), [...known, quote(`${place.path}:${flag}`)]);
    }
  }
  const valued = [...patterns.values()].flat();
  const values = [...patterns].map(([action, which]) => `    ${which.join('|')}) ${action};;`);
  const placeCases = places.map(
    ({ path, names, options, operands }) =>
      `    ${quote(path)}) names=${quote(names.join(' '))} options=${quote(options.join(' '))}
      [[ $cur == -* ]] || ${reply(operands)};;`,
  );
  return `# Completion for qmp-agent, generated by: qmp-agent completion
_qmp_agent() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" path= pending= names= options= word i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    if [[ -n $pending ]]; then pending=; continue; fi
    if [[ $word == -- ]]; then return; fi
    case "$path:$word" in
      ${valued.join('|')}) pending="$word"; continue;;
    esac
    case "\${path:+$path }$word" in
      ${paths.join('|')}) path="\${path:+$path }$word";;
    esac
  done
  case "$path:$pending" in
${values.join('\n')}
  esac
  if [[ -n $pending ]]; then return; fi
  case "$path" in
${placeCases.join('\n')}
  esac
  if [[ $cur == -* ]]; then names="$options"; fi
  COMPREPLY+=($(compgen -W "$names" -- "$cur"))
}
`;
}

/** Shell code that puts the candidates for `$cur` into COMPREPLY. */
function reply(source: Source): string {
  switch (source.kind) {
    case 'words':
      return `COMPREPLY=($(compgen -W ${quote(source.words.join(' '))} -- "$cur"))`;
    case 'ask':
      return `COMPREPLY=($(compgen -W "$(qmp-agent __complete ${source.what} 2>/dev/null)" -- "$cur"))`;
    case 'files':
      return 'COMPREPLY=($(compgen -f -- "$cur"))';
    case 'none':
      return ':';
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
