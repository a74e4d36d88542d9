/** What any of the hooks reports. `code` is the server's and stable; `message` is for people. */
export class WaselError extends Error {
  /** The server's word for it, such as `window_closed`; `network` where no answer came. */
  readonly code: string;
  /** The status of the HTTP answer; 0 where none came. */
  readonly status: number;
  /** The part of the request at fault, where the server names one. */
  readonly field: string | null;

  constructor(message: string, details: { code: string; status?: number; field?: string | null; cause?: unknown }) {
    super(message, { cause: details.cause });
    this.name = 'WaselError';
    this.code = details.code;
    this.status = details.status ?? 0;
    this.field = details.field ?? null;
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

const textOf = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);

/**
 * The error in the body of a refusal, in any of the server's shapes: `{error: {code, message, field}}` of `/v1`,
 * `{success: false, error, code}` of the documents' paths, `{code, message, details, hint}` of REST.
 */
export function errorOfAnswer(status: number, body: unknown): WaselError {
  const outer = isObject(body) ? body : {};
  const inner = isObject(outer['error']) ? outer['error'] : outer;
  const message = textOf(inner['message']) ?? textOf(inner['error']) ?? `the server answered ${status}`;
  const code = textOf(inner['code']) ?? textOf(outer['code']) ?? 'error';
  return new WaselError(message, { code, status, field: textOf(inner['field']), cause: body });
}

/** Whatever was thrown or returned as an error, as a {@link WaselError}. */
export function errorOf(thrown: unknown, status = 0): WaselError {
  if (thrown instanceof WaselError) return thrown;
  const code = isObject(thrown) ? textOf(thrown['code']) : null;
  const message = isObject(thrown) ? textOf(thrown['message']) : textOf(thrown);
  const isUnreachable = thrown instanceof TypeError || (status === 0 && code === null);
  return new WaselError(message ?? 'unknown error', {
    code: code ?? (isUnreachable ? 'network' : 'error'),
    status,
    cause: thrown,
  });
}
