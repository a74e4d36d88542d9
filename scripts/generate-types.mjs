#!/usr/bin/env node
// Writes packages/react/src/database.types.ts: the schema in the form that Supabase's own generator gives it, for
// createClient<Database>(). It holds what signed-in people may read; columns with a default may be left out of an
// insert, and a view can be written only where the database lets it.
//
//   node scripts/generate-types.mjs            of a fresh database of the built server (WASEL_BIN names another binary)
//   node scripts/generate-types.mjs --check    only says whether the file is as it should be

import { readFile, writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const FILE = new URL('../packages/react/src/database.types.ts', import.meta.url);

// Everything in one question, sorted by name, so that the same schema gives the same file.
const SCHEMA = `
WITH relations AS (
  SELECT c.oid, c.relname AS name, c.relkind IN ('r', 'p') AS is_table,
    pg_relation_is_updatable(c.oid, true) AS updatable,
    has_table_privilege('authenticated', c.oid, 'INSERT') AS may_insert,
    has_table_privilege('authenticated', c.oid, 'UPDATE') AS may_update
  FROM pg_class c
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    AND has_any_column_privilege('authenticated', c.oid, 'SELECT')
), columns AS (
  SELECT a.attrelid, json_agg(json_build_object(
      'name', a.attname, 'type', t.typname, 'enum', t.typtype = 'e', 'nullable', NOT a.attnotnull,
      'default', a.atthasdef OR a.attidentity <> '', 'fixed', a.attgenerated <> '' OR a.attidentity = 'a',
      'words', (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conrelid = a.attrelid
        AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
        AND pg_get_constraintdef(k.oid) ~ '^CHECK \\(\\(\\w+ = ANY \\(ARRAY\\[(''\\w+''::text(, )?)+\\]\\)\\)\\)$'
        ORDER BY k.conname LIMIT 1)
    ) ORDER BY a.attname COLLATE "C") AS list
  FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
  WHERE a.attnum > 0 AND NOT a.attisdropped AND has_column_privilege('authenticated', a.attrelid, a.attnum, 'SELECT')
  GROUP BY a.attrelid
), keys AS (
  SELECT k.conrelid, json_agg(json_build_object(
      'name', k.conname, 'to', f.name,
      'columns', (SELECT json_agg(a.attname ORDER BY n) FROM unnest(k.conkey) WITH ORDINALITY u(num, n)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num),
      'toColumns', (SELECT json_agg(a.attname ORDER BY n) FROM unnest(k.confkey) WITH ORDINALITY u(num, n)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num),
      'oneToOne', EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indisunique AND i.indpred IS NULL
        AND i.indexprs IS NULL AND i.indkey::int2[] <@ k.conkey)
    ) ORDER BY k.conname COLLATE "C") AS list
  FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid JOIN relations f ON f.oid = k.confrelid
  WHERE k.contype = 'f' AND k.conparentid = 0
  GROUP BY k.conrelid
)
SELECT json_build_object(
  'relations', (SELECT json_agg(json_build_object(
      'name', r.name, 'table', r.is_table, 'insert', r.is_table OR (r.may_insert AND r.updatable & 8 <> 0),
      'update', r.is_table OR (r.may_update AND r.updatable & 4 <> 0),
      'columns', c.list, 'keys', coalesce(k.list, '[]')) ORDER BY r.name COLLATE "C")
    FROM relations r JOIN columns c ON c.attrelid = r.oid LEFT JOIN keys k ON k.conrelid = r.oid),
  'functions', coalesce((SELECT json_agg(json_build_object(
      'name', p.proname, 'set', p.proretset, 'returns', rt.typname,
      'row', (SELECT r.name FROM relations r WHERE r.oid = rt.typrelid),
      'args', coalesce((SELECT json_agg(json_build_object('name', p.proargnames[n], 'type', t.typname,
          'optional', n > p.pronargs - p.pronargdefaults) ORDER BY p.proargnames[n] COLLATE "C")
        FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u(type, n) JOIN pg_type t ON t.oid = u.type), '[]'))
      ORDER BY p.proname COLLATE "C", p.oid)
    FROM pg_proc p JOIN pg_type rt ON rt.oid = p.prorettype
    WHERE p.pronamespace = 'public'::regnamespace AND p.prokind = 'f' AND rt.typname <> 'trigger'
      AND has_function_privilege('authenticated', p.oid, 'EXECUTE')
      AND (p.pronargs = 0 OR p.proargnames IS NOT NULL)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')), '[]'),
  'enums', coalesce((SELECT json_agg(json_build_object('name', t.typname, 'words',
      (SELECT json_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
      ORDER BY t.typname COLLATE "C")
    FROM pg_type t WHERE t.typnamespace = 'public'::regnamespace AND t.typtype = 'e'), '[]'))
`;

const NUMBERS = ['int2', 'int4', 'int8', 'float4', 'float8', 'numeric'];

/** The type of a value as JSON. */
function typeOf(name, isEnum) {
  if (name.startsWith('_')) return `${typeOf(name.slice(1), isEnum)}[]`;
  if (NUMBERS.includes(name)) return 'number';
  if (name === 'bool') return 'boolean';
  if (name === 'json' || name === 'jsonb') return 'Json';
  if (name === 'void') return 'undefined';
  return isEnum ? `Database["public"]["Enums"]["${name}"]` : 'string';
}

/** A text that a CHECK holds to some words is one of these words. */
function valueOf(column) {
  const words = column.words?.match(/'\w+'(?=::text)/g);
  return words ? words.map((word) => word.replaceAll("'", '"')).join(' | ') : typeOf(column.type, column.enum);
}

const quoted = (names) => `[${names.map((name) => JSON.stringify(name)).join(', ')}]`;

/** `name: type` for each column; `nullable` says of views that nothing is known about them. */
function fields(columns, { optional, isTable }) {
  return columns.map((column) => {
    const isNullable = !isTable || column.nullable;
    const mark = optional(column) ? '?' : '';
    return `          ${column.name}${mark}: ${column.fixed && mark ? 'never' : valueOf(column) + (isNullable ? ' | null' : '')}`;
  });
}

function relation({ table, insert, update, columns, keys, name }) {
  const lines = [`      ${name}: {`, '        Row: {', ...fields(columns, { optional: () => false, isTable: table }), '        }'];
  if (insert) {
    const optional = (column) => !table || column.nullable || column.default || column.fixed;
    lines.push('        Insert: {', ...fields(columns, { optional, isTable: table }), '        }');
  }
  if (update) lines.push('        Update: {', ...fields(columns, { optional: () => true, isTable: table }), '        }');
  if (keys.length === 0) lines.push('        Relationships: []');
  else {
    lines.push('        Relationships: [');
    for (const key of keys) {
      lines.push(
        '          {',
        `            foreignKeyName: "${key.name}"`,
        `            columns: ${quoted(key.columns)}`,
        `            isOneToOne: ${key.oneToOne}`,
        `            referencedRelation: "${key.to}"`,
        `            referencedColumns: ${quoted(key.toColumns)}`,
        '          },',
      );
    }
    lines.push('        ]');
  }
  return [...lines, '      }'];
}

function procedure({ name, args, returns, row, set }) {
  const list = args.map((arg) => `${arg.name}${arg.optional ? '?' : ''}: ${typeOf(arg.type)}`).join('; ');
  const result = row ? `Database["public"]["Tables"]["${row}"]["Row"]` : typeOf(returns);
  return `      ${name}: { Args: ${list ? `{ ${list} }` : 'never'}; Returns: ${result}${set ? '[]' : ''} }`;
}

const group = (name, lines) => [`    ${name}: {`, ...(lines.length > 0 ? lines : ['      [_ in never]: never']), '    }'];

/** The file's text. `psql` runs a statement and returns what it prints. */
export async function generate(psql) {
  const { relations, functions, enums } = JSON.parse(await psql(SCHEMA));
  return `${[
    '// Made by scripts/generate-types.mjs from the migrated schema: do not edit.',
    '',
    'export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]',
    '',
    'export type Database = {',
    '  __InternalSupabase: {',
    '    PostgrestVersion: "13"',
    '  }',
    '  public: {',
    ...group('Tables', relations.filter((one) => one.table).flatMap(relation)),
    ...group('Views', relations.filter((one) => !one.table).flatMap(relation)),
    ...group('Functions', functions.map(procedure)),
    ...group('Enums', enums.map(({ name, words }) => `      ${name}: ${words.map((word) => JSON.stringify(word)).join(' | ')}`)),
    ...group('CompositeTypes', []),
    '  }',
    '}',
    '',
    'type Public = Database["public"]',
    '',
    '/** A row of a table or view as it is read. */',
    'export type Tables<Name extends keyof (Public["Tables"] & Public["Views"])> =',
    '  (Public["Tables"] & Public["Views"])[Name]["Row"]',
    '',
    '/** A row as it is inserted. */',
    'export type TablesInsert<Name extends keyof Public["Tables"]> = Public["Tables"][Name]["Insert"]',
    '',
    '/** What an update may change. */',
    'export type TablesUpdate<Name extends keyof Public["Tables"]> = Public["Tables"][Name]["Update"]',
  ].join('\n')}\n`;
}

/** The words that are wrong about the file, or none. */
export async function staleness(psql) {
  const written = await readFile(FILE, 'utf8').catch(() => '');
  if ((await generate(psql)) === written) return null;
  return 'packages/react/src/database.types.ts is not as the schema is: run node scripts/generate-types.mjs';
}

async function main() {
  const { Server } = await import('../tests/js/harness.mjs');
  // Nothing is sent: the providers may be nowhere.
  const server = await Server.start({ simulator: { base: 'http://127.0.0.1:1' } });
  const psql = (sql) => server.psql(sql);
  try {
    if (process.argv.includes('--check')) {
      const stale = await staleness(psql);
      if (stale) {
        console.error(stale);
        process.exitCode = 1;
      }
    } else {
      await writeFile(FILE, await generate(psql));
    }
  } finally {
    await server.stop();
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
