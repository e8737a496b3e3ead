-- What must never change, and what must always balance.

create function livery.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% on %.% is refused: rows of this table never change', tg_op, tg_table_schema, tg_table_name
    using errcode = 'restrict_violation';
end $$;

create function livery.check_balance() returns trigger language plpgsql as $$
declare
  broken record;
begin
  -- Deferred triggers run under the last tenant set: a posting transaction never changes tenant.
  if new.tenant_id is distinct from livery.tid() then
    raise exception 'a ledger posting was committed under another tenant' using errcode = 'integrity_constraint_violation';
  end if;
  select e.currency, sum(e.amount_minor) as total, count(*) as n into broken
    from livery.ledger_entry e where e.tenant_id = new.tenant_id and e.txn_id = new.txn_id
   group by e.currency having sum(e.amount_minor) <> 0 or count(*) < 2 limit 1;
  if found then
    raise exception 'ledger posting % does not balance: % % over % entries', new.txn_id, broken.total, broken.currency, broken.n
      using errcode = 'integrity_constraint_violation';
  end if;
  return null;
end $$;

create constraint trigger ledger_entry_balance after insert on livery.ledger_entry
  deferrable initially deferred for each row execute function livery.check_balance();
