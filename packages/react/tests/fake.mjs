// What supabase-js is to the hooks, with a server that says what the test wants, when it wants it.

const STEPS = ['select', 'eq', 'or', 'order', 'limit', 'abortSignal'];

export class FakeClient {
  channels = [];
  /** Whether joins succeed by themselves; otherwise the test calls `told`. */
  joinsAtOnce = false;
  /** Queries, the oldest first; each waits for its `answer(rows)`. */
  reads = [];

  channel(topic) {
    const channel = {
      topic,
      handlers: {},
      on: (type, binding, handler) => {
        channel.handlers[type] = handler;
        if (type === 'postgres_changes') channel.binding = binding;
        return channel;
      },
      subscribe: (told) => {
        channel.told = told;
        if (this.joinsAtOnce) queueMicrotask(() => told('SUBSCRIBED'));
        return channel;
      },
      presenceState: () => ({}),
      track: async () => 'ok',
      untrack: async () => 'ok',
      send: async () => 'ok',
    };
    this.channels.push(channel);
    return channel;
  }

  removeChannel(channel) {
    channel.isRemoved = true;
    return Promise.resolve('ok');
  }

  from(table) {
    const query = { table, steps: [] };
    const answered = new Promise((resolve) => {
      query.answer = (data) => resolve({ data, error: null, status: 200 });
    });
    for (const step of STEPS) {
      query[step] = (...given) => {
        query.steps.push([step, ...given]);
        return query;
      };
    }
    query.then = (...handlers) => answered.then(...handlers);
    this.reads.push(query);
    return query;
  }
}
