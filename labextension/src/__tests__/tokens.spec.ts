/**
 * The contract, against what Python sends: its tests hold the same two files. TypeScript itself is asked whether they
 * are what the interfaces say, for a literal may neither lack a key nor have one too many.
 */
import { join } from 'node:path';

import ts from 'typescript';
import { beforeAll, expect, test } from 'vitest';

import panel from '../../../tests/data/panel.json';
import session from '../../../tests/data/session.json';
import { CommandIDs, NAMESPACE } from '../tokens';

type Value = unknown;
type Path = (string | number)[];

interface ICase {
  words: string;
  type: 'IAnswer' | 'ISession';
  value: Value;
}

const GOLDEN: ICase[] = [
  { words: 'panel.json', type: 'IAnswer', value: panel },
  { words: 'session.json', type: 'ISession', value: session }
];

const LACKING = GOLDEN.flatMap(golden =>
  keysIn(golden.value).map(path => ({
    ...golden,
    words: `${golden.words} without ${path.join('.')}`,
    value: changed(golden.value, path, (object, key) => delete object[key])
  }))
);

const TOO_MUCH = GOLDEN.flatMap(golden =>
  objectsIn(golden.value).map(path => ({
    ...golden,
    words: `${golden.words} with one key more in ${path.join('.') || 'itself'}`,
    value: changed(golden.value, [...path, 'surplus'], (object, key) => (object[key] = 1))
  }))
);

const WRONG: ICase[] = [
  { words: 'a state that nobody knows', path: ['session', 'jobs', 0, 'state'], value: 'lost' },
  { words: 'a session state that nobody knows', path: ['session', 'state'], value: 'lost' },
  { words: 'a time in words', path: ['session', 'jobs', 0, 'start_time'], value: '12:05' },
  { words: 'no id', path: ['session', 'jobs', 0, 'id'], value: null }
].map(({ words, path, value }) => ({
  words,
  type: 'IAnswer',
  value: changed(panel, path, (object, key) => (object[key] = value))
}));

let complaints: Map<string, string[]>;

beforeAll(() => {
  complaints = checked([...GOLDEN, ...LACKING, ...TOO_MUCH, ...WRONG]);
}, 30_000);

test.each(GOLDEN)('$words is what the interface says', ({ words }) => {
  expect(complaints.get(words)).toEqual([]);
});

test('none of its keys may be missing', () => {
  expect(LACKING.length).toBeGreaterThan(60);
  expect(accepted(LACKING)).toEqual([]);
});

test('it may have no key that the interface does not have', () => {
  expect(TOO_MUCH.length).toBeGreaterThan(10);
  expect(accepted(TOO_MUCH)).toEqual([]);
});

test('nor values of another kind', () => {
  expect(accepted(WRONG)).toEqual([]);
});

test('commands have ids of their own, in the namespace', () => {
  const ids = Object.values(CommandIDs);
  expect(new Set(ids).size).toBe(ids.length);
  expect(ids.filter(id => !id.startsWith(`${NAMESPACE}:`))).toEqual([]);
});

function accepted(cases: ICase[]): string[] {
  return cases.map(({ words }) => words).filter(words => complaints.get(words)?.length === 0);
}

/** What TypeScript has to say of each. */
function checked(cases: ICase[]): Map<string, string[]> {
  const name = join(import.meta.dirname, 'golden.ts');
  const lines = cases.map(({ type, value }, i) => `const value${i}: tokens.${type} = ${JSON.stringify(value)};`);
  const text = [...lines, "import * as tokens from '../tokens';"].join('\n');
  const options: ts.CompilerOptions = {
    strict: true,
    types: [],
    target: ts.ScriptTarget.ES2020,
    lib: ['lib.es5.d.ts']
  };
  const onDisk = ts.createCompilerHost(options);
  const host: ts.CompilerHost = {
    ...onDisk,
    fileExists: file => file === name || onDisk.fileExists(file),
    getSourceFile: (file, language) =>
      file === name ? ts.createSourceFile(file, text, language) : onDisk.getSourceFile(file, language)
  };
  const program = ts.createProgram([name], options, host);
  const source = program.getSourceFile(name)!;
  const told = new Map<string, string[]>(cases.map(({ words }) => [words, []]));
  for (const { start, messageText } of program.getSemanticDiagnostics(source)) {
    const { line } = source.getLineAndCharacterOfPosition(start ?? 0);
    // a case that is not one of them is a mistake of this file
    told.get(cases[line].words)!.push(ts.flattenDiagnosticMessageText(messageText, '\n'));
  }
  return told;
}

function objectsIn(value: Value, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) {
    return [];
  }
  const inside = Object.entries(value).flatMap(([key, part]) => objectsIn(part, [...path, key]));
  return Array.isArray(value) ? inside : [path, ...inside];
}

function keysIn(value: Value): Path[] {
  return objectsIn(value).flatMap(path => Object.keys(at(value, path)).map(key => [...path, key]));
}

function at(value: Value, path: Path): Record<string, Value> {
  return path.reduce((object, key) => (object as Record<string, Value>)[key], value) as Record<string, Value>;
}

function changed(value: Value, path: Path, change: (object: Record<string, Value>, key: string) => void): Value {
  const copy = structuredClone(value);
  change(at(copy, path.slice(0, -1)), String(path[path.length - 1]));
  return copy;
}
