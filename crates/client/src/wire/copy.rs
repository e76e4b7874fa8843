//! Settings of copies.

use portlayer::archive::Attributes;
use portlayer::copy::CopyOptions;
use portlayer_proto::v1;

use super::{Wire, WireError};

impl Wire for CopyOptions {
    type Message = v1::CopyOptions;

    fn into_wire(self) -> v1::CopyOptions {
        let CopyOptions {
            special_nodes,
            keep_setid,
            attributes,
            bytes,
        } = self;
        let attributes = match attributes {
            Attributes::None => v1::CopyAttributes::Unspecified,
            Attributes::User => v1::CopyAttributes::User,
            Attributes::All => v1::CopyAttributes::All,
        };
        v1::CopyOptions {
            special_nodes,
            set_id: keep_setid,
            attributes: attributes.into(),
            max_bytes: bytes,
        }
    }

    fn from_wire(message: v1::CopyOptions) -> Result<Self, WireError> {
        let attributes = match v1::CopyAttributes::try_from(message.attributes) {
            Ok(v1::CopyAttributes::Unspecified) => Attributes::None,
            Ok(v1::CopyAttributes::User) => Attributes::User,
            Ok(v1::CopyAttributes::All) => Attributes::All,
            Err(_) => {
                return Err(WireError::Invalid {
                    field: "attributes".to_owned(),
                    rule: "unknown value",
                });
            }
        };
        Ok(CopyOptions {
            special_nodes: message.special_nodes,
            keep_setid: message.set_id,
            attributes,
            bytes: message.max_bytes,
        })
    }
}
