// Clock measures an answer as its reader sees it.
export class Clock {
  constructor() { this.begun = performance.now(); }

  token(n = 1) {
    const now = performance.now();
    this.first ??= now;
    this.last = now;
    this.tokens = (this.tokens || 0) + n;
  }

  // describe tells the times; usage has the server's counts, where there are any.
  describe(usage, streamed) {
    const tokens = usage?.completion_tokens ?? this.tokens ?? 0;
    const total = (performance.now() - this.begun) / 1000;
    const parts = [tokens === 1 ? "1 token" : `${tokens} tokens`];
    // A short answer may come in one piece: then only the whole can be timed.
    const span = streamed ? (this.last - this.first) / 1000 : 0;
    const rate = span > 0.05 ? (tokens - 1) / span : tokens / total;
    if (tokens > 0) parts.push(`${rate.toFixed(1)} tokens/s`);
    if (streamed && this.first) parts.push(`first token ${Math.round(this.first - this.begun)} ms`);
    parts.push(`${total.toFixed(2)} s`);
    const thought = usage?.completion_tokens_details?.reasoning_tokens, cached = usage?.prompt_tokens_details?.cached_tokens;
    if (thought) parts.push(`reasoning ${thought}`);
    if (usage?.prompt_tokens) parts.push(`prompt ${usage.prompt_tokens}${cached ? `, ${cached} cached` : ""}`);
    return parts.join(" · ");
  }
}
