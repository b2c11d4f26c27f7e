"""From whole source transactions to committed rows on the target."""
