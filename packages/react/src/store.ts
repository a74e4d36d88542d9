import { useEffect, useSyncExternalStore } from 'react';

/**
 * State that lives beside React: a hook shows it, and starts and stops it with its component. Nothing happens before
 * `start`, so one that is made and thrown away (StrictMode, a server) costs nothing.
 */
export abstract class Store<State extends object> {
  #state: State;
  readonly #initial: State;
  readonly #listeners = new Set<() => void>();

  constructor(initial: State) {
    this.#initial = initial;
    this.#state = initial;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly snapshot = (): State => this.#state;

  /** What a server renders. */
  readonly initial = (): State => this.#initial;

  protected set(changes: Partial<State>): void {
    this.#state = { ...this.#state, ...changes };
    for (const listener of this.#listeners) listener();
  }

  /** Starts in the next microtask: React's StrictMode has unmounted once more by then. Returns how to stop. */
  start(): () => void {
    const stop = new AbortController();
    queueMicrotask(() => {
      if (!stop.signal.aborted) this.run(stop.signal);
    });
    return () => stop.abort();
  }

  /** Works until the signal. May be called again afterwards. */
  protected abstract run(signal: AbortSignal): void;
}

/** Runs the store while the component is mounted. */
export function useStore<State extends object>(store: Store<State>): State {
  useEffect(() => store.start(), [store]);
  return useSyncExternalStore(store.subscribe, store.snapshot, store.initial);
}
