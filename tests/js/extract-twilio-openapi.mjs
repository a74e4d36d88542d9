// Makes `twilio-openapi.json`, the facts that the tests hold our Twilio adapter against: names, types and formats of
// the Messages resource, without a word of its descriptions.
//
//   git clone https://github.com/twilio/twilio-oai
//   node extract-twilio-openapi.mjs twilio-oai/spec/json/twilio_api_v2010.json "$(git -C twilio-oai rev-parse HEAD)"

import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const LIST = '/2010-04-01/Accounts/{AccountSid}/Messages.json';
const ONE = '/2010-04-01/Accounts/{AccountSid}/Messages/{Sid}.json';

const [file, commit] = process.argv.slice(2);
if (!file || !/^[0-9a-f]{40}$/.test(commit ?? '')) {
  console.error('usage: extract-twilio-openapi.mjs SPEC-FILE COMMIT');
  process.exit(2);
}
const spec = JSON.parse(await readFile(file, 'utf8'));

/** Follows a reference within the document. */
function resolved(schema) {
  if (!schema.$ref) return schema;
  const found = schema.$ref
    .split('/')
    .slice(1)
    .reduce((node, name) => node?.[name], spec);
  if (!found) throw new Error(`${schema.$ref} is not there`);
  return resolved(found);
}

/** What is kept of a schema. */
function facts(reference) {
  const schema = resolved(reference);
  if (!schema.type) throw new Error(`no type: ${JSON.stringify(reference)}`);
  return {
    type: schema.type,
    ...(schema.format && { format: schema.format }),
    ...(schema.pattern && { pattern: schema.pattern }),
    ...(schema.enum && { enum: schema.enum }),
    ...(schema.nullable && { nullable: true }),
    ...(schema.items && { items: facts(schema.items) }),
  };
}

const factsOf = (properties) =>
  Object.fromEntries(
    Object.entries(properties)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, schema]) => [name, facts(schema)]),
  );

function operation(method, path) {
  const { operationId, requestBody, parameters = [], responses } = spec.paths[path][method];
  const [mediaType, body] = Object.entries(requestBody?.content ?? {})[0] ?? [];
  const [status, answer] = Object.entries(responses).find(([status]) => status.startsWith('2'));
  const answerSchema = answer.content && resolved(answer.content['application/json'].schema);
  const query = parameters.filter((parameter) => parameter.in === 'query');
  const required = new Set(body?.schema.required ?? []);
  return {
    name: operationId,
    extract: {
      method: method.toUpperCase(),
      path,
      ...(mediaType && { request_type: mediaType }),
      ...(body && {
        parameters: Object.entries(factsOf(body.schema.properties)).map(([name, it]) => ({
          name,
          ...it,
          required: required.has(name),
        })),
      }),
      ...(query.length > 0 && { query: query.map(({ name, schema }) => ({ name, ...facts(schema) })) }),
      status: Number(status),
      // All but the list answer with the resource itself.
      ...(answerSchema?.properties.messages && { response: factsOf(answerSchema.properties) }),
    },
  };
}

const operations = [
  operation('post', LIST),
  operation('get', LIST),
  operation('get', ONE),
  operation('post', ONE),
  operation('delete', ONE),
];
const created = spec.paths[LIST].post.responses['201'].content['application/json'].schema;
const extract = {
  source: {
    repository: 'https://github.com/twilio/twilio-oai',
    path: 'spec/json/twilio_api_v2010.json',
    commit,
    openapi: spec.openapi,
    version: spec.info.version,
    api_version: LIST.split('/')[1],
    server: spec.paths[LIST].servers[0].url,
  },
  operations: Object.fromEntries(operations.map(({ name, extract }) => [name, extract])),
  message: factsOf(resolved(created).properties),
};
await writeFile(
  fileURLToPath(new URL('twilio-openapi.json', import.meta.url)),
  `${JSON.stringify(extract, null, 2)}\n`,
);
