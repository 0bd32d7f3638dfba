"""Pure helpers without models: clocks, periods, money, tokens, rate limits."""
