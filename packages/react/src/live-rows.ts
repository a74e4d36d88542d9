import type { Connection } from './context.js';
import { errorOf } from './errors.js';
import type { WaselError } from './errors.js';
import { resumable } from './resumable.js';
import type { Change, RowOf, StreamedName, Subscription } from './resumable.js';
import { Store } from './store.js';

/** How long rows wait for the subscription, so that one reading is enough. */
const JOIN_WAIT = 1_500;

/** Rows of one answer, as servers limit them. */
export const MOST_ROWS = 1_000;

export interface LiveState {
  /** Nothing has been read yet. */
  loading: boolean;
  error: WaselError | null;
  /** Changes arrive by themselves. */
  live: boolean;
}

/**
 * Rows of one table that stay as they are in the database: read once the subscription stands, then changed by what it
 * tells. What is told while rows are being read counts more than what was read.
 */
export abstract class LiveRows<Name extends StreamedName, State extends LiveState> extends Store<State> {
  protected readonly connection: Connection;
  /** Ends what is under way when the component goes. */
  protected signal: AbortSignal = AbortSignal.abort();
  #hasRows = false;
  #reading = false;
  #again = false;
  /** What became known since each reading under way began. */
  readonly #told = new Set<(() => void)[]>();

  readonly #isWanted: boolean;

  /** With `isWanted` false it stays empty. */
  constructor(connection: Connection, initial: State, isWanted = true) {
    const { status } = connection.who;
    super({ ...initial, loading: isWanted && (status === 'loading' || status === 'signed_in') });
    this.connection = connection;
    this.#isWanted = isWanted;
  }

  protected abstract subscription(): Subscription<Name>;

  /** Reads rows; returns what to do with them, which happens at once with the newest changes after it. */
  protected abstract read(signal: AbortSignal): Promise<() => void>;

  /** Takes one change in. */
  protected abstract apply(change: Change<RowOf<Name>>): void;

  /** The state that the rows make. */
  protected abstract show(): Partial<State>;

  protected override run(signal: AbortSignal): void {
    const { who, client } = this.connection;
    if (who.status === 'failed') this.set({ loading: false, error: who.error } as Partial<State>);
    if (who.status !== 'signed_in' || !this.#isWanted) return;
    this.signal = signal;
    const late = setTimeout(() => this.#readFirst(), JOIN_WAIT);
    resumable(
      client,
      this.subscription(),
      {
        change: (change) => {
          this.learn(() => this.apply(change));
          this.set(this.show());
        },
        reload: () => {
          clearTimeout(late);
          void this.reload();
        },
        live: (live, error) => {
          this.set({ live } as Partial<State>);
          if (error?.code === 'subscription_refused') this.fail(error);
          // Without a feed there are rows at least; and what could not be read is tried once more with one.
          this.#readFirst();
        },
      },
      signal,
    );
    signal.addEventListener('abort', () => {
      clearTimeout(late);
      this.#hasRows = false;
      this.#reading = false;
      this.set({ live: false } as Partial<State>);
    });
  }

  #readFirst(): void {
    if (!this.#hasRows && !this.#reading && !this.signal.aborted) void this.reload();
  }

  /** Reads the rows again. Errors are in the state. */
  protected readonly reload = async (): Promise<void> => {
    const signal = this.signal;
    if (signal.aborted) return;
    if (this.#reading) {
      this.#again = true;
      return;
    }
    this.#reading = true;
    do {
      this.#again = false;
      try {
        await this.during(this.read(signal), (take) => take());
        if (signal.aborted) return;
        this.#hasRows = true;
        this.set({ loading: false } as Partial<State>);
      } catch (thrown) {
        if (signal.aborted) return;
        this.set({ loading: false, error: errorOf(thrown) } as Partial<State>);
      }
    } while (this.#again);
    this.#reading = false;
  };

  /** Takes something in, and once more when rows come that were being read before it was known. */
  protected learn(take: () => void): void {
    for (const told of this.#told) told.push(take);
    take();
  }

  /** Waits for rows, takes them, and takes in anew what became known meanwhile. */
  protected async during<Rows>(rows: Promise<Rows>, take: (rows: Rows) => void): Promise<void> {
    const signal = this.signal;
    const told: (() => void)[] = [];
    this.#told.add(told);
    try {
      const read = await rows;
      if (signal.aborted) return;
      take(read);
      for (const takeAgain of told) takeAgain();
      this.set({ ...this.show(), error: null });
    } finally {
      this.#told.delete(told);
    }
  }

  /** Says that something else went wrong; the rows stay. */
  protected fail(thrown: unknown): void {
    if (!this.signal.aborted) this.set({ error: errorOf(thrown) } as Partial<State>);
  }
}

/** Times as Postgres and as our API write them, oldest first; microseconds count. */
export function compareTimes(a: string, b: string): number {
  const digits = (time: string) => (/\.(\d+)/.exec(time)?.[1] ?? '').padEnd(6, '0');
  return Date.parse(a) - Date.parse(b) || Number(digits(a)) - Number(digits(b));
}

/** A text as a literal in a PostgREST condition list. */
export const literal = (text: string): string => `"${text.replace(/[\\"]/g, '\\$&')}"`;
