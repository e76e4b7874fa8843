//! Create: checks everything, moves the bytes, records once.

use tokio_util::sync::CancellationToken;

use super::make::{Input, Made};
use super::{Refused, builtin, check};
use crate::PortLayer;
use crate::element::in_flight::Pin;
use crate::element::{Body, Descriptor, ElementId, Kind, Metadata, NewElement, Record};
use crate::error::CreateError;
use crate::event::Change;
use crate::ledger::{AuditEntry, Index, LedgerError, Txn, Verb as AuditVerb};
use crate::store::ProgressSink;

impl PortLayer {
    /// Creates an element. Not idempotent: the second create of an id is `AlreadyExists`, with the checksum of what
    /// is there. Of many at once exactly one wins. Dropping the future undoes what was begun.
    ///
    /// Errors, in the order looked for: `Location`, `SpecKind`, `InvalidField`, `InvalidEntry`, `ReadOnlyKey`,
    /// `UnknownParent`, `InvalidParent`, `UnknownOwner`, `InvalidOwner`, `AlreadyExists`, `Store`, `Ledger`. After an
    /// error nothing is left.
    pub async fn create(&self, new: NewElement) -> Result<Descriptor, CreateError> {
        self.create_with_progress(new, None).await
    }

    /// [`create`](Self::create) with reports of how far the bytes are.
    pub async fn create_with_progress(
        &self,
        new: NewElement,
        progress: Option<ProgressSink>,
    ) -> Result<Descriptor, CreateError> {
        // In a task of its own: a caller that goes away must not leave half an element, so the task lives on, sees
        // the cancellation and cleans up.
        let id = new.id.clone();
        let cancelled = CancellationToken::new();
        let _cancel = cancelled.clone().drop_guard();
        let layer = self.clone();
        let created =
            tokio::spawn(async move { layer.create_alone(new, progress, cancelled).await }).await;
        created.map_err(|_| CreateError::Ledger {
            id,
            source: LedgerError::Closed,
        })?
    }

    async fn create_alone(
        &self,
        new: NewElement,
        progress: Option<ProgressSink>,
        cancelled: CancellationToken,
    ) -> Result<Descriptor, CreateError> {
        let id = new.id.clone();
        let location = self.check_location(&new)?.clone();
        check::fields(&new)?;
        // One network at a time is compared with the others.
        let _networks = match id.kind() {
            Kind::Network => Some(
                self.shared
                    .in_flight
                    .exclusive(&builtin::no_network())
                    .await,
            ),
            _ => None,
        };
        self.check_beyond(&new)?;
        let (ro, rw) = check::metadata(&id, new.ro, new.rw)?;
        let _pin: Option<Pin> = match &new.parent {
            Some(parent) => Some(self.shared.in_flight.pin(parent, &id).await),
            None => None,
        };
        let parent = self.check_parent(&id, new.parent.as_ref(), &location, new.data.is_some())?;
        self.check_unbound(&id, parent.as_ref()).await?;
        self.check_owner(&id, new.owner.as_ref())?;
        let _id = self.shared.in_flight.exclusive(&id).await;
        self.check_free(&id)?;

        let input = Input {
            spec: new.spec,
            parent,
            data: new.data,
            checksum: new.checksum,
            progress,
        };
        crate::crash::point("create.before-bytes");
        let made = self.make(&id, &location, input, &cancelled).await?;
        crate::crash::point("create.before-record");
        let recorded = self
            .record_new(NewRecord {
                id: id.clone(),
                parent: new.parent,
                owner: new.owner,
                ro,
                rw,
                hidden: new.hidden,
                made: made.clone(),
            })
            .await;
        crate::crash::point("create.after-record");
        match recorded {
            Ok(record) => Ok(self.describe(record)),
            Err(refused) => {
                if !refused.is_uncertain() {
                    self.drop_bytes(&id, &location, &made).await;
                }
                Err(refused.into_error(|source| CreateError::Ledger { id, source }))
            }
        }
    }

    async fn check_unbound(
        &self,
        id: &ElementId,
        parent: Option<&Record>,
    ) -> Result<(), CreateError> {
        let Some(parent) = parent.filter(|parent| parent.id.kind() == Kind::Volume) else {
            return Ok(());
        };
        let (child, parent) = (id.clone(), parent.id.clone());
        let checked = self
            .shared
            .ledger
            .write(move |txn| check_parent_now(txn, &child, &parent));
        checked.await.map_err(|refused| {
            refused.into_error(|source| CreateError::Ledger {
                id: id.clone(),
                source,
            })
        })
    }

    async fn record_new(&self, new: NewRecord) -> Result<Record, Refused<CreateError>> {
        let by = self.operation();
        self.shared
            .ledger
            .write(move |txn| {
                let NewRecord {
                    id,
                    parent,
                    owner,
                    ro,
                    rw,
                    hidden,
                    made,
                } = new;
                if let Some(parent) = &parent {
                    check_parent_now(txn, &id, parent)?;
                    txn.link(Index::Children, parent, &id);
                }
                if let Some(owner) = &owner {
                    if txn.get(owner)?.is_none() {
                        return Err(Refused::Verb(CreateError::UnknownOwner {
                            id: id.clone(),
                            owner: owner.clone(),
                        }));
                    }
                    txn.link(Index::Owned, owner, &id);
                }
                let now = txn.now();
                let record = Record {
                    id,
                    parent,
                    owner,
                    checksum: made.checksum,
                    size: made.size,
                    ro,
                    rw,
                    revision: 1,
                    created: now,
                    modified: now,
                    state: made.state,
                    hidden,
                    body: made.body,
                };
                txn.put(&record)?;
                if let Some(definition) = made.definition {
                    txn.put_data(&record.id, definition);
                }
                let row = AuditEntry::done(AuditVerb::Create, 0, record.revision);
                txn.audit(&by, &record.id, row.checksum(record.checksum))?;
                txn.emit(&record.id, record.revision, Change::Created);
                if let Some(parent) = &record.parent
                    && let Some(parent) = txn.get(parent)?
                {
                    let child = record.id.clone();
                    txn.emit(&parent.id, parent.revision, Change::Inherited { child });
                }
                Ok(record)
            })
            .await
    }
}

/// Checked before the bytes are made and once more with the record: the parent may go or be bound meanwhile.
fn check_parent_now(
    txn: &Txn<'_>,
    id: &ElementId,
    parent: &ElementId,
) -> Result<(), Refused<CreateError>> {
    let Some(record) = txn.get(parent)? else {
        return Err(Refused::Verb(CreateError::UnknownParent {
            id: id.clone(),
            parent: parent.clone(),
        }));
    };
    let volume = parent.kind() == Kind::Volume;
    if volume && is_bound(txn, parent)? {
        return Err(Refused::Verb(CreateError::InvalidParent {
            id: id.clone(),
            parent: record.id,
            reason: "it is bound to an executor",
        }));
    }
    Ok(())
}

struct NewRecord {
    id: ElementId,
    parent: Option<ElementId>,
    owner: Option<ElementId>,
    ro: Metadata,
    rw: Metadata,
    hidden: bool,
    made: Made,
}

/// Whether an executor has the element bound. A stopped executor's binding counts: it would start again.
fn is_bound(txn: &Txn<'_>, id: &ElementId) -> Result<bool, LedgerError> {
    for executor in txn.linked(Index::References, id)? {
        if let Some(record) = txn.get(&executor)?
            && let Body::Executor(body) = &record.body
            && body
                .composition
                .joined
                .get(id)
                .is_some_and(|joined| joined.bound)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
